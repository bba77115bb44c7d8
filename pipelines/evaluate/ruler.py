"""What samples are measured with: a network that was trained on the run's own training items, and its features.

Shapes: N items, C x H x W picture.
"""

from dataclasses import dataclass

import numpy as np
import torch

from stage1_vqvae.images.networks import image_tensor
from twostage.data.interface import Dataset
from twostage.metrics.frechet import FeatureGaussian, fit_gaussian
from twostage.storage.checkpoint import load_checkpoint

from ..modality.pictures import Pictures
from ..runs.run import Run
from .classifier import Classifier, Reading, has_labels, read, trained_classifier
from .turns import all_turned


@dataclass(frozen=True)
class Ruler:
    """The trained network, ready to read pictures."""

    network: Classifier
    learned: str
    """What it was trained to tell: `labels` or, of data without any, `turns`."""
    sha256: str
    """Of its weights."""
    device: torch.device
    batch_size: int

    def read(self, pictures_NCHW: np.ndarray) -> Reading:
        """What it makes of pictures in integer levels."""
        return read(self.network, pictures_NCHW, device=self.device, batch_size=self.batch_size)

    def accuracy(self, pictures_NCHW: np.ndarray, reading: Reading, labels_N: np.ndarray) -> float:
        """Share of the pictures that it tells right: as their labels or, in all of their ways, as turned so."""
        if self.learned == "labels":
            return reading.agreement(labels_N)
        shown, ways_N = all_turned(image_tensor(pictures_NCHW))
        return self.read(shown.numpy()).agreement(ways_N.numpy())


def ruler_of(run: Run, dataset: Dataset, pictures: Pictures, device: torch.device) -> Ruler:
    """The run's ruler, trained first where there is none that belongs to the data.

    Raises:
        RunError: its training diverged or the disk refused.
    """
    folder, batch_size = run.path / "classifier", run.recipe.evaluation.batch_size
    network = trained_classifier(folder, dataset, pictures, device=device, batch_size=batch_size)
    sha256 = load_checkpoint(folder / "best").sha256["model.safetensors"]
    learned = "labels" if has_labels(dataset) else "turns"
    return Ruler(network, learned, sha256=sha256, device=device, batch_size=batch_size)


def gaussian(reading: Reading) -> FeatureGaussian:
    """The Gaussian that stands for a set of pictures."""
    return fit_gaussian([reading.features_NF])
