"""Stage one for images: networks, VQ-VAE on one grid and on several, VAE, autoencoder, VIMCO and their training tasks.

Codebooks are in `quantiser`, mass functions over levels in `twostage.likelihoods`.
"""
