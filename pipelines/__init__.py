"""Everything that sees both stages: verbs, run folders, pages. Installed as `twostage_pipelines`.

The stages and the common ground never import it; what needs no trained run belongs below, in `twostage`.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {"load_run": "generate.two_stage", "main": "cli.main"}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
