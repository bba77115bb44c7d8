"""Images: nothing but latents and sub-pixels costs bits, and a reconstruction is as good as its PSNR."""

from typing import Any

import numpy as np
from torch import Tensor

from stage1_vqvae.batch import Batch
from stage1_vqvae.interface import Stage1Model
from twostage.data import ImageDataset
from twostage.metrics.code_labels import CodeMeaning
from twostage.metrics.statistics import psnr_db
from twostage.storage.codes import CodeFile

from .measures import Beside, Side


class ImageMeasures:
    """Images of a split as `Measures`."""

    decoder: str | None = None
    sizes_N: np.ndarray | None = None
    seconds: float | None = None

    def __init__(self, dataset: ImageDataset, split: str) -> None:
        self.items, self.dims = len(dataset.split(split)), dataset.dims

    def facts(self) -> dict[str, Any]:
        return {}

    def beside(self) -> Beside | None:
        return None

    def conditioned_on(self, *, label: bool, speaker: bool) -> str | None:
        return None

    def condition(self, file: CodeFile) -> np.ndarray | None:
        return None

    def side(self, *, label: bool, speaker: bool, ends_N: np.ndarray | None = None) -> Side | None:
        return None

    def decoded_items(self, model: Stage1Model) -> np.ndarray:
        return np.arange(self.items)

    def error(self, batch: Batch, decoded: Tensor) -> Tensor:
        """Squared, the sum over sub-pixels."""
        return (decoded - batch.x).double().pow(2).flatten(1).sum(1)

    def quality(self, error_M: np.ndarray, items_M: np.ndarray, model: Stage1Model) -> dict[str, Any]:
        return {
            "psnr_db": psnr_db(float(error_M.sum()), len(items_M) * self.dims, model.levels),
            "psnr_of": "sample" if model.autoregressive else "mean",
        }

    def meaning(self, train: CodeFile, codes: CodeFile) -> CodeMeaning | None:
        return None
