"""Stage one for images: networks, VQ-VAE, VAE, autoencoder, VIMCO and their training tasks."""
