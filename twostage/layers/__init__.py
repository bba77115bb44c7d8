"""Causal and dilated convolutions and their cached steps: layers that both stages build on."""
