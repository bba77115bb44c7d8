"""soundfile and torchaudio, imported when sound is first read: images must work where either cannot be loaded.

torchaudio's wheels are built for one CUDA release: beside another torch the import raises RuntimeError, beside a
CPU-only one OSError. soundfile raises OSError where libsndfile is missing.
"""

from importlib import import_module
from typing import Any

from twostage.errors import RunError

FITTING_TORCHAUDIO = "torchaudio 2.11 fits torch 2.11 to 2.14 except 2.13, built for CUDA 13.0"


def load_soundfile() -> Any:
    """The module soundfile.

    Raises:
        RunError: it cannot be imported.
    """
    return _load("soundfile", "try pip install --force-reinstall 'soundfile>=0.13', which brings libsndfile along")


def load_torchaudio(module: str) -> Any:
    """A module of torchaudio such as `functional`.

    Raises:
        RunError: it cannot be imported; the sentence says which versions fit together.
    """
    return _load(f"torchaudio.{module}", FITTING_TORCHAUDIO)


def _load(name: str, remedy: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(f"expected to import {name}, which sound needs, but it failed ({reason}): {remedy}") from error
