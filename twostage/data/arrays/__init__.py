"""Arrays of whole numbers in .npy and .npz files: how they are read, and which of them are what.

What a data set makes of them belongs to its kind of data (`twostage.data.images.stacks`).
"""
