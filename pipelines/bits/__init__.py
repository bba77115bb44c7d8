"""Code lengths: bits of images and recordings under a model, and codes as bytes. Nothing here writes a run."""
