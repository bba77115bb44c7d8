"""Measures of arrays, one a file; they know neither models nor runs.

What needs a model to be measured is in the pipelines' `bits` and `evaluate`.
"""
