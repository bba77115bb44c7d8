"""The files of a run: atomic writes, locks, manifests, checkpoints, codes; no model and no data set.

Which of them a run has, and where, is known to the pipelines' `runs`.
"""
