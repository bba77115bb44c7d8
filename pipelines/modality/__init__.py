"""What differs between kinds of data, one file a kind: how a recipe becomes data set and model, which arrays fit.

It knows recipes, data sets and models, never a run folder or a verb.
"""
