"""What all kinds of data have in common for the verbs."""

from collections.abc import Mapping
from typing import Any

from twostage.data import ImageDataset
from twostage.data.audio import AudioDataset

AnyDataset = ImageDataset | AudioDataset


def as_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """JSON turned the shapes into lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
