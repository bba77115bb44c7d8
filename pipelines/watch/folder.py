"""Pictures of a training in its folder: one of every validation, and a strip of the same items over the steps.

TRAINING/pictures/step-XXXXXXXX.png   originals above, what the model made of them below; or samples
TRAINING/pictures/step-XXXXXXXX.wav   what it made, to hear, and once originals.wav
TRAINING/pictures/strip.png           originals, then a row for each of some steps, the newest below

How many there are is bounded: only every second validation is kept once there are too many, then every fourth, and so
on, with the newest. Which these are follows from the newest step alone, so that a training that was interrupted has the
pictures of one that was not.

Shapes: N items, C x H x W picture.
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from twostage.storage.atomic import write_atomic
from twostage.storage.checkpoint import step_name
from twostage.storage.regular_file import read_regular

from ..media.png import display_scale, grid, png
from ..media.wav import wav_bytes
from ..modality.pictures import Heard

FOLDER, STRIP, ORIGINALS = "pictures", "strip.png", "originals.wav"
MOST_STEPS, MOST_ROWS = 32, 12
"""Validations whose pictures are kept, and that the strip shows, beside the newest."""
LARGEST_SIDE, SMALL_SIDE = 128, 48
"""Pixels: larger pictures are scaled down to the first, small ones up to about the second."""
_LARGEST_FILE = 1 << 26
_MARGIN = 64
"""Pixels beside a row of the strip, for its step."""
_PICTURE = re.compile(r"step-(\d{8,})\.(?:png|wav)", re.ASCII)


def fitted(pictures_NCHW: np.ndarray) -> np.ndarray:
    """uint8 pictures scaled for the eye: large ones down by averaging, small ones up by a whole factor."""
    height, width = pictures_NCHW.shape[-2:]
    longest = max(height, width)
    if longest <= LARGEST_SIDE:
        scale = display_scale(longest, target=SMALL_SIDE)
        return pictures_NCHW.repeat(scale, -2).repeat(scale, -1)
    size = tuple(max(1, round(side * LARGEST_SIDE / longest)) for side in (width, height))
    planes = [
        np.asarray(Image.fromarray(plane_HW).resize(size, Image.Resampling.BOX))
        for plane_HW in pictures_NCHW.reshape(-1, height, width)
    ]
    return np.stack(planes).reshape(*pictures_NCHW.shape[:2], *planes[0].shape)


def kept_steps(newest: int, *, every: int, most: int) -> list[int]:
    """Steps up to `newest` whose pictures are kept: at most `most` at even distances, and the newest."""
    apart = every
    while newest // apart > most:
        apart *= 2
    steps = list(range(apart, newest + 1, apart))
    return steps if newest in steps else [*steps, newest]


def pictured_steps(folder: Path) -> list[int]:
    """Steps of which there are pictures in TRAINING/pictures, in order."""
    found = [_PICTURE.fullmatch(place.name) for place in folder.iterdir()] if folder.is_dir() else []
    return sorted({int(name[1]) for name in found if name is not None})


class PictureFolder:
    """Writes the pictures of one training; `every` is its number of steps between validations."""

    def __init__(self, training: Path, *, every: int) -> None:
        self.folder, self.every = training / FOLDER, every

    def begin(self, step: int) -> None:
        """Remove the pictures of later steps, which will come again."""
        self._remove(later for later in pictured_steps(self.folder) if later > step)

    def keep(
        self,
        step: int,
        *,
        originals_NCHW: np.ndarray | None,
        made_NCHW: np.ndarray,
        originals: Heard | None,
        made: Heard | None,
    ) -> None:
        """Write the pictures of a validation, and the strip anew.

        Args:
            step: behind which it was.
            originals_NCHW, made_NCHW: uint8 pictures, as `fitted` gives them.
            originals, made: the same to hear.
        """
        rows = [made_NCHW] if originals_NCHW is None else [originals_NCHW, made_NCHW]
        sheet_CHW = grid(np.concatenate(rows), columns=len(made_NCHW))
        write_atomic(self.folder / f"{step_name(step)}.png", png(sheet_CHW))
        for name, heard in ((ORIGINALS, originals), (f"{step_name(step)}.wav", made)):
            if heard is not None:
                write_atomic(self.folder / name, wav_bytes(heard.samples, heard.rate_hz))
        wanted = kept_steps(step, every=self.every, most=MOST_STEPS)
        self._remove(set(pictured_steps(self.folder)) - set(wanted))
        first = None if originals_NCHW is None else grid(originals_NCHW, columns=len(originals_NCHW))
        write_atomic(self.folder / STRIP, png(self._strip(step, grid(made_NCHW, columns=len(made_NCHW)), first)))

    def _strip(self, newest: int, row_CHW: np.ndarray, first: np.ndarray | None) -> np.ndarray:
        """Rows of the same items, the originals first and the newest last, each with its step beside it."""
        rows = {} if first is None else {"original": first}
        for step in kept_steps(newest, every=self.every, most=MOST_ROWS)[:-1]:
            earlier_CHW = self._row(step, like=row_CHW)
            if earlier_CHW is not None:
                rows[str(step)] = earlier_CHW
        rows[str(newest)] = row_CHW
        return _labelled(rows)

    def _row(self, step: int, *, like: np.ndarray) -> np.ndarray | None:
        """The last row of the picture of an earlier step; None where that is missing or of another form."""
        try:
            data = read_regular(self.folder / f"{step_name(step)}.png", most=_LARGEST_FILE)
            pixels = np.asarray(Image.open(io.BytesIO(data), formats=("PNG",)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        sheet_CHW = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        row_CHW = sheet_CHW[:, -like.shape[1] :]
        return row_CHW if row_CHW.shape == like.shape and row_CHW.dtype == like.dtype else None

    def _remove(self, steps: Iterable[int]) -> None:
        for step in steps:
            for suffix in ("png", "wav"):
                (self.folder / f"{step_name(step)}.{suffix}").unlink(missing_ok=True)


def _labelled(rows: dict[str, np.ndarray]) -> np.ndarray:
    """Rows `[C, H, W]` of one size below one another, each with a text on its left."""
    sheet_CHW = np.concatenate([row_CHW[:, 1:] if at else row_CHW for at, row_CHW in enumerate(rows.values())], 1)
    channels, height, width = sheet_CHW.shape
    whole_CHW = np.zeros((channels, height, _MARGIN + width), np.uint8)
    whole_CHW[..., _MARGIN:] = sheet_CHW
    pixels_HWC = np.moveaxis(whole_CHW, 0, -1)
    picture = Image.fromarray(np.ascontiguousarray(pixels_HWC[..., 0] if channels == 1 else pixels_HWC))
    draw, each = ImageDraw.Draw(picture), height / len(rows)
    for at, text in enumerate(rows):
        draw.text((_MARGIN - 6, (at + 0.5) * each), text, fill="white", anchor="rm")
    labelled = np.asarray(picture)
    return labelled[None] if channels == 1 else np.moveaxis(labelled, -1, 0)
