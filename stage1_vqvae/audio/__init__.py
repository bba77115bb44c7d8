"""Stage one for recordings: networks, VQ-VAE, VAE, WaveNet decoder and their training tasks.

Codebooks are in `quantiser`, mass functions over samples in `twostage.likelihoods`.
"""
