"""Vectors to codes: nearest code, codebook updates, k-means start and gradients. One quantiser a file."""
