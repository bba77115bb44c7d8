"""Which device and how many threads a command computes with."""

import torch

from twostage.errors import UsageError


def pick_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` to a device; on CUDA, fp32 means fp32, not TF32.

    Raises:
        UsageError: CUDA was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda was asked for, but torch finds no CUDA device; use --device cpu (see twostage doctor)"
        )
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda")


def use_threads(threads: int) -> None:
    """Set torch's CPU threads; 0 leaves torch's own choice."""
    if threads:
        torch.set_num_threads(threads)
