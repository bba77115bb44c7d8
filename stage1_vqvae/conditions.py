"""What models are conditioned on beside latents: labels and speakers, numbers from 0."""

import torch
from torch import Tensor

from stage1_vqvae.batch import Asked
from twostage.errors import UsageError


class Conditioned:
    """A model that takes of what it is asked for what it is conditioned on."""

    classes: int = 0
    speakers: int = 0

    def labels_of(self, asked: Asked) -> Tensor | None:
        """The labels that the model is conditioned on."""
        return asked.labels if self.classes else None

    def speakers_of(self, asked: Asked) -> Tensor | None:
        """The speakers that the model is conditioned on."""
        return asked.speakers if self.speakers else None


def check_labels(labels_B: Tensor | None, *, classes: int, count: int) -> None:
    """Refuse labels that a model does not know; like those of images, values are looked at only on the CPU.

    Raises:
        UsageError: not int64 `[count]` with values 0..classes-1; or labels for a model without classes.
    """
    if not classes and labels_B is not None:
        raise UsageError("this model was built without classes and takes no labels: leave them out")
    _check(labels_B, "label", "this model is conditional, say what it is given", size=classes, count=count)


def check_speakers(speaker_B: Tensor | None, *, speakers: int, count: int) -> None:
    """Refuse speakers that a model does not know, as `check_labels`.

    Raises:
        UsageError: not int64 `[count]` with values 0..speakers-1; or speakers for a model without any.
    """
    if not speakers and speaker_B is not None:
        raise UsageError("this model was built without speakers and is given none: leave them out")
    _check(speaker_B, "speaker", "say who speaks", size=speakers, count=count)


def _check(numbers_B: Tensor | None, one: str, missing: str, *, size: int, count: int) -> None:
    if not size:
        return
    expected = f"expected {count} {one}s from 0 to {size - 1}, int64"
    if numbers_B is None:
        raise UsageError(f"{expected}, got none: {missing}")
    if numbers_B.dtype != torch.int64 or tuple(numbers_B.shape) != (count,):
        raise UsageError(f"{expected}, got {numbers_B.dtype} of shape {tuple(numbers_B.shape)}: one {one} per item")
    if numbers_B.device.type == "cpu" and count and not 0 <= int(numbers_B.min()) <= int(numbers_B.max()) < size:
        raise UsageError(
            f"{expected}, got {int(numbers_B.min())} to {int(numbers_B.max())}: the model was trained on no other"
        )
