"""New images and sounds from a trained run, and pictures of what a latent space holds."""
