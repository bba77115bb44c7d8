"""Mass functions over integer levels: p(x|z) of images and recordings, and draws from them.

Weights of losses and everything else that only training needs live with the models.
"""
