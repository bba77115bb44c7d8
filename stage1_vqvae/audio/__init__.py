"""Stage one for recordings: networks, VQ-VAE, VAE, WaveNet decoder and their training tasks."""
