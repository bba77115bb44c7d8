"""Code lengths of images and recordings under a model, and codes as bytes and back.

Nothing here writes into a run or draws a table; that is `evaluate`.
"""
