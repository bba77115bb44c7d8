"""Images as `Files`: PNG files, or arrays with a picture beside each, and one picture of all.

Shapes: N items, B items of a batch, C x H x W image, G codebooks, h x w grid of codes.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.batch import Batch
from stage1_vqvae.images.codec import ImageCodec
from stage1_vqvae.images.networks import image_tensor
from stage1_vqvae.interface import Stage1Model
from twostage.config.schema import Recipe
from twostage.data import Split
from twostage.data.images.dataset import level_type
from twostage.distributed import own_batches
from twostage.errors import RunError, UsageError
from twostage.grids import Grids, named_grids
from twostage.metrics.statistics import psnr_db
from twostage.storage.codes import CodeFile

from ..media.npy import SUFFIX, read_npy, write_npy
from ..media.png import bits_of, display_scale, fit_of, grid, read_image, to_bytes, to_words, write_png
from .files import Kept, Record, Shown
from .pictures import to_levels


def _form(record: Record) -> tuple[tuple[int, int, int], int]:
    """Shape `(C, H, W)` and levels of a model's images."""
    channels, height, width = record["architecture"]["image_shape"]
    return (channels, height, width), record["architecture"]["levels"]


_CHANNELS_SHOWN = {2: " of its first channel", 4: " of its first three channels"}


class ImageFiles:
    """See `Files`."""

    item, source, count = "image", "image", 64
    unit, apart = "bits/dim", ""
    one_overview, have_lengths = True, False

    def suffixes(self, record: Record) -> tuple[str, ...]:
        (channels, _, _), levels = _form(record)
        deep = levels > 256 and record["dataset"].startswith("arrays")
        return (SUFFIX, ".png") if deep or channels not in (1, 3) else (".png",)

    def prefix_of(self, model: str) -> str:
        return ""

    def batches(
        self, split: Split, model: Stage1Model, *, recipe: Recipe, device: torch.device, rows: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        rows_N = np.arange(len(split)) if rows is None else rows
        images_NCHW = (
            split.images if rows is None else split.images[rows]
        )  # as they lie in memory, which rounding knows
        for part in own_batches(len(rows_N), recipe.evaluation.batch_size):
            items_B = rows_N[part]
            yield (
                items_B,
                Batch(
                    items=torch.from_numpy(items_B),
                    x=image_tensor(images_NCHW[part]).to(device),
                    labels=torch.from_numpy(split.labels[items_B]).to(device) if model.classes else None,
                ),
            )

    def read(self, path: Path, record: Record, recipe: Recipe) -> np.ndarray:
        image_shape, levels = _form(record)
        if path.suffix.lower() == SUFFIX:
            image_CHW = read_npy(path, image_shape=image_shape, levels=levels)
            return image_CHW.astype(level_type(levels), copy=False)
        bits = bits_of(recipe.data, levels)
        return read_image(path, image_shape=image_shape, levels=levels, fit=fit_of(recipe.data), bits=bits)

    def arrays(self, given: object, record: Record, rate_hz: int | None) -> list[np.ndarray]:
        image_shape, levels = _form(record)
        if rate_hz is not None:
            raise UsageError("sample_rate_hz is for recordings, but this run is about images: leave it out")
        several = list(given) if isinstance(given, list | tuple) else [given]
        arrays = [np.asarray(each.detach().cpu() if isinstance(each, Tensor) else each) for each in several]
        images = [image for each in arrays for image in (each if each.ndim == 4 else [each])]
        for image in images:
            whole = image.dtype.kind in "iu" and image.shape == image_shape
            if not whole or not 0 <= int(image.min()) <= int(image.max()) < levels:
                raise UsageError(
                    f"expected images of the shape {image_shape}, integers from 0 to {levels - 1}, but an array of the "
                    f"shape {image.shape}, {image.dtype}, came: bring them to size and levels"
                )
        if not images:
            raise UsageError("expected images, got none")
        return [image.astype(level_type(levels)) for image in images]

    def split_of(self, items: Sequence[np.ndarray], labels: Sequence[int] = (), speakers: Sequence[int] = ()) -> Split:
        return Split(images=np.stack(items), labels=np.array(labels or np.zeros(len(items)), np.int64))

    def speakers_in(self, paths: Sequence[Path], recipe: Recipe, speakers: tuple[str, ...]) -> list[int | None]:
        return [None] * len(paths)

    def together(self, recipe: Recipe) -> int:
        return recipe.evaluation.batch_size

    def lengths_of(self, split: Split) -> None:
        return None

    def grids_of(self, split: Split, model: ImageCodec) -> Grids:
        return model.grids

    def length_of(self, seconds: float, model: Any, record: Record, most: int | None, *, flag: str) -> int:
        raise UsageError(f"{flag} is for recordings, but this run is about images: leave it out")

    def length_after(self, positions: Tensor, model: Any) -> Tensor:
        raise NotImplementedError  # asked where `have_lengths`

    def kept(self, command: Any, codes: Tensor, item: np.ndarray, model: ImageCodec, record: Record) -> Kept:
        """Rows of the coarsest grid, and the rows of finer ones that lie under them."""
        rows, grids = command.keep_rows, model.grids
        all_rows = grids[0][0]
        height = item.shape[1] // all_rows
        of = "rows of codes" if len(grids) == 1 else f"rows of the coarsest codes ({named_grids(grids)})"
        if rows >= all_rows:
            raise UsageError(
                f"--keep-rows must be less than the {all_rows} {of} (one is {height} image rows), but is {rows}"
            )
        said = f"{rows} of {all_rows} {of} of {command.complete}: {rows * height} of {item.shape[1]} image rows"
        if len(grids) == 1:
            return Kept(codes[:, :, :rows], None, said)
        masks = [torch.arange(high)[:, None].expand(high, wide) < rows * high // all_rows for high, wide in grids]
        return Kept(codes, torch.cat([mask.flatten() for mask in masks]), said)

    def check_codes(self, codes: CodeFile, model: Any, record: Record, *, name: str, source: str, remedy: str) -> None:
        if codes.header.grids != model.grids:
            raise RunError(f"expected codes that fit model {name}, but {source} holds others: {remedy}")

    def made(self, decoded: Tensor, lengths: Tensor | None) -> list[np.ndarray]:
        return list(decoded.cpu().numpy())

    def handed(
        self, items: Sequence[np.ndarray], record: Record, labels: Sequence[int], speakers: Sequence[int]
    ) -> Tensor:
        return torch.from_numpy(np.stack(items))

    def difference(self, own: np.ndarray, made: np.ndarray, record: Record) -> str:
        _, levels = _form(record)
        error = float(((made - own).astype(np.float64) ** 2).mean())
        psnr = psnr_db(error, 1, levels)
        shown = "no error" if psnr is None else f"PSNR {psnr:.2f} dB"
        return f"mean squared error {error:.2f} of {levels} levels, {shown}"

    def write(self, folder: Path, shown: Shown, record: Record, *, what: str) -> str:
        """Also one picture of all: each beside its original, or all behind one."""
        _, levels = _form(record)
        items_NCHW, own, as_array = np.stack(shown.items), shown.originals, SUFFIX in self.suffixes(record)
        pixels_NCHW = to_bytes(items_NCHW, levels)
        files_NCHW = to_words(items_NCHW, levels) if levels > 256 and not as_array else pixels_NCHW
        for stem, item_CHW, picture_CHW in zip(shown.stems, items_NCHW, files_NCHW, strict=True):
            if as_array:
                write_npy(folder / f"{stem}{SUFFIX}", to_levels(item_CHW, levels))
            write_png(folder / f"{stem}.png", picture_CHW)
        all_NCHW, columns = pixels_NCHW, shown.columns
        if own:
            own_NCHW = to_bytes(np.stack(own), levels)
            pairs = np.stack([own_NCHW, pixels_NCHW], 1) if len(own) == len(pixels_NCHW) else None
            columns = 0 if pairs is None else 2
            all_NCHW = np.concatenate([own_NCHW, pixels_NCHW]) if pairs is None else pairs.reshape(-1, *pairs.shape[2:])
        columns = columns or math.ceil(math.sqrt(len(all_NCHW)))
        overview = f"{shown.overview}.png"
        write_png(folder / overview, grid(all_NCHW, columns=columns), scale=display_scale(max(all_NCHW.shape[-2:])))
        shown_as = f" (each beside a picture of 8 bits{_CHANNELS_SHOWN.get(min(items_NCHW.shape[1], 4), '')})"
        return f"{what}{shown_as if as_array else ''} and {overview} in {folder}"
