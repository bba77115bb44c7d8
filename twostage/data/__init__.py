"""Data sets as integer arrays, and the order in which training reads them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twostage.data.batches import batch_indices
    from twostage.data.dataset import ImageDataset, Split, load_dataset

_SUBMODULES = {
    "ImageDataset": "dataset",
    "Split": "dataset",
    "batch_indices": "batches",
    "load_dataset": "dataset",
}

__all__ = ["ImageDataset", "Split", "batch_indices", "load_dataset"]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)
