"""Common ground of both stages: settings, data, codes on disk, training loop, checkpoints, metrics, likelihoods.

No model and no verb: what only one stage needs belongs to that stage, what needs both to the pipelines.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "Recipe": "config",
    "load_recipe": "config",
    "recipe_names": "config",
    "ImageDataset": "data",
    "Split": "data",
    "load_dataset": "data",
    "CodeFile": "storage.codes",
    "CodeHeader": "storage.codes",
    "load_codes": "storage.codes",
    "save_codes": "storage.codes",
    "flat_ids": "storage.flat_ids",
    "save_ids": "storage.flat_ids",
    "Checkpoint": "storage.checkpoint",
    "load_checkpoint": "storage.checkpoint",
    "save_checkpoint": "storage.checkpoint",
    "DataError": "errors",
    "RunError": "errors",
    "TwoStageError": "errors",
    "UsageError": "errors",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Reading the installed metadata takes longer than the rest of the import.
        from importlib.metadata import version

        return version("twostage")
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
