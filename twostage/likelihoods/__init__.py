"""Mass functions over integer levels: p(x|z) of images and recordings. Training losses live with the models."""
