"""Images: nothing but latents and sub-pixels costs bits; reconstructions are measured by `image_quality`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from stage1_vqvae.batch import Batch
from stage1_vqvae.interface import Stage1Model
from twostage.data import ImageDataset
from twostage.metrics.code_labels import CodeMeaning
from twostage.progress import say
from twostage.storage.codes import CodeFile

from .image_faults import image_faults
from .image_quality import ImageQuality
from .measures import Beside, Fault, Side


class ImageMeasures:
    """Images of a split as `Measures`."""

    decoder: str | None = None
    sizes_N: np.ndarray | None = None
    seconds: float | None = None

    def __init__(self, dataset: ImageDataset, split: str, *, downsampling: int) -> None:
        self.dims, self._images = dataset.dims, dataset.split(split).images
        self._said = False
        self._quality = ImageQuality(dataset.shape, dataset.levels, downsampling)

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
        return np.arange(len(self._images))

    @property
    def numbers(self) -> int:
        return self._quality.numbers

    def compare(self, batch: Batch, decoded: Tensor) -> Tensor:
        return self._quality.of(batch.x, decoded)

    def quality(self, numbers_RM: np.ndarray, items_M: np.ndarray, model: Stage1Model) -> dict[str, Any]:
        if self._quality.no_ssim is not None and not self._said:
            say(f"SSIM is left out: {self._quality.no_ssim}")
        self._said = True
        mean_CHW = self._images[items_M].mean(0, dtype=np.float64)
        found = self._quality.together(numbers_RM, mean_CHW, sampled=model.autoregressive)
        return found | {"psnr_of": "sample" if model.autoregressive else "mean"}

    def faults(self, row: Mapping[str, Any]) -> tuple[Fault, ...]:
        return image_faults(row)

    def meaning(self, train: CodeFile, codes: CodeFile) -> CodeMeaning | None:
        return None
