"""Recordings as 16-bit integers: data sets, segments, mu-law levels and spectral distances.

What images need as well is one folder up; networks and likelihoods never see files.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twostage.data.audio.dataset import AudioDataset, AudioSplit
    from twostage.data.audio.folder import load_recordings
    from twostage.data.audio.segments import RecordingBatch, length_batches, whole_batch
    from twostage.data.audio.synthetic import load_synthetic_vowels

_SUBMODULES = {
    "AudioDataset": "dataset",
    "AudioSplit": "dataset",
    "RecordingBatch": "segments",
    "length_batches": "segments",
    "load_recordings": "folder",
    "load_synthetic_vowels": "synthetic",
    "whole_batch": "segments",
}

__all__ = [
    "AudioDataset",
    "AudioSplit",
    "RecordingBatch",
    "length_batches",
    "load_recordings",
    "load_synthetic_vowels",
    "whole_batch",
]


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUBMODULES[name]}"), name)
