"""TensorBoard's event files, by the writer that comes with torch; the package tensorboard is an extra of this one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twostage.errors import RunError

FOLDER = "tensorboard"


def load_writer() -> type[Any]:
    """torch's `SummaryWriter`.

    Raises:
        RunError: the package tensorboard is not installed, or does not fit torch.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except (ImportError, AttributeError) as error:
        raise RunError(
            f"--log tensorboard needs the package tensorboard, which cannot be loaded ({str(error).splitlines()[0]}): "
            "install it with pip install 'twostage[tensorboard]', or leave --log out"
        ) from error
    return SummaryWriter


class EventFile:
    """Events of one training under FOLDER/tensorboard, a file for every session.

    Args:
        training: its folder.
        step: after which the session begins: later events of earlier sessions are hidden by TensorBoard.

    Raises:
        RunError: there is no such package.
        OSError: nothing can be written there.
    """

    def __init__(self, training: Path, *, step: int) -> None:
        self._writer = load_writer()(str(training / FOLDER), purge_step=step + 1)

    def scalars(self, step: int, numbers: Mapping[str, float], *, of: str) -> None:
        """Numbers as NAME/of, so that those on training and on validation data stand beside each other."""
        for name, value in numbers.items():
            self._writer.add_scalar(f"{name}/{of}", value, step)

    def picture(self, step: int, name: str, pixels_CHW: np.ndarray) -> None:
        """A uint8 picture."""
        self._writer.add_image(name, pixels_CHW, step)

    def sound(self, step: int, name: str, samples_S: np.ndarray, rate_hz: int) -> None:
        """int16 samples."""
        self._writer.add_audio(name, samples_S[None].astype(np.float32) / 32768.0, step, sample_rate=rate_hz)

    def codes(self, step: int, codes: Sequence[np.ndarray], codebook_size: int) -> None:
        """How often every code is used, by codebook."""
        for number, codes_M in enumerate(codes):
            name = "codes" if len(codes) == 1 else f"codes/{number}"
            self._writer.add_histogram(name, codes_M, step, bins=np.arange(codebook_size + 1) - 0.5)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
