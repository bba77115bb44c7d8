"""New images and sounds from a trained run, by verb or from Python, and pictures of what a latent space holds.

Sampling itself belongs to the prior (`stage2_prior`); files given by the user go through `coding`.
"""
