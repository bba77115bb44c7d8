"""Causal and dilated convolutions with their cached steps, and the residual block, which both stages build on.

Layers of one stage alone stay with that stage.
"""
