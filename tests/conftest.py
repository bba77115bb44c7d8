"""Every test runs torch on one thread: tiny operations on two shared cores are many times slower with two."""

import torch

torch.set_num_threads(1)
