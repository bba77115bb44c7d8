"""Causal and dilated convolutions and their cached steps, which both stages build on.

Layers of one stage alone stay with that stage.
"""
