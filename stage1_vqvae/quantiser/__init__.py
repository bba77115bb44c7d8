"""Vectors to codes: nearest code, codebook updates, k-means start and gradients; one quantiser a file.

Nothing here knows images, recordings or networks.
"""
