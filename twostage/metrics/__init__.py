"""Measures of arrays, one a file; they know neither models nor runs."""
