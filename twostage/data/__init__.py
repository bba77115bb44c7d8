"""Data sets as integer arrays, one folder a kind, and what reading files of every kind shares.

Order of batches included; nothing here knows a network.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twostage.data.images.dataset import ImageDataset, Split
    from twostage.data.images.load import load_dataset

_SUBMODULES = {"ImageDataset": "images.dataset", "Split": "images.dataset", "load_dataset": "images.load"}

__all__ = ["ImageDataset", "Split", "load_dataset"]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)
