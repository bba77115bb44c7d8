"""Scores of a run: rows, tables, diagnosis, quality of samples, and the verbs that write them.

Code lengths come from `bits`, measures of arrays from `twostage.metrics`; figures and pages are drawn in `report`.
"""
