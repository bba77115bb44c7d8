"""The verbs from files to codes and back: encode, decode, reconstruct, convert.

Sampling from a prior is in `generate`; code lengths are in `bits`.
"""
