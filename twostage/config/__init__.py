"""Settings of an experiment: the schema, its checks, and TOML files.

Nothing here imports torch or builds what it describes.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "DataConfig": "schema",
    "EvaluationConfig": "schema",
    "GaussianConfig": "schema",
    "PriorConfig": "schema",
    "QuantiserConfig": "schema",
    "Recipe": "schema",
    "Stage1Config": "schema",
    "TrainingConfig": "schema",
    "MODEL_NAMES": "model_names",
    "baseline_beta": "model_names",
    "baseline_name": "model_names",
    "check_model": "model_names",
    "check_recipe": "check",
    "dump_recipe": "load",
    "load_recipe": "load",
    "load_run_recipe": "load",
    "parse_recipe": "load",
    "recipe_names": "load",
    "shipped_text": "load",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
