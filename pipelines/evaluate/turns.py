"""In which way a picture was turned: what a network learns to see in pictures that have no labels.

Gidaris et al. 2018 (RotNet, arXiv 1803.07728): a network that tells by how many quarter turns a picture was turned has
to know what the pictures are of. Its features compare samples with real items where there is no label to train a
classifier on. Departure: pictures are mirrored as well, in all eight ways of a square or, where they are none, all four
of a rectangle, because the axes of a spectrogram are told apart too easily. Nobody can tell left from right in many
photographs, so that the share of right answers is half at best there; that does the features no harm.

Shapes: B pictures of a batch, C x H x W picture.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.images.networks import image_tensor
from twostage.noise import batch_integers
from twostage.training.task import StepResult


def ways(shape: Sequence[int]) -> int:
    """In how many ways a picture `[C, H, W]` can be turned and mirrored and keep its shape."""
    return 8 if shape[1] == shape[2] else 4


def turned(x_BCHW: Tensor, ways_B: Tensor) -> Tensor:
    """Every picture turned in its own way; 0 leaves it as it is."""
    square = ways(x_BCHW.shape[1:]) == 8
    quarters = range(0, 4, 1 if square else 2)
    made = [torch.rot90(x, turns, dims=(2, 3)) for x in (x_BCHW, x_BCHW.flip(3)) for turns in quarters]
    return torch.stack(made)[ways_B, torch.arange(len(x_BCHW), device=x_BCHW.device)]


def all_turned(x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures in all of their ways, one way after the other, and the way of each, int64."""
    number = ways(x_BCHW.shape[1:])
    ways_B = torch.arange(number, device=x_BCHW.device).repeat_interleave(len(x_BCHW))
    return turned(x_BCHW.repeat(number, 1, 1, 1), ways_B), ways_B


class TurnsTask:
    """Cross-entropy of the ways in which training pictures are turned, drawn in every step; validated on all ways.

    Args:
        model: from pictures in integer levels to logits, one a way.
        train, validation: pictures `[N, C, H, W]` in integer levels.
        device: where it computes.
        evaluation_batch_size: pictures per forward pass of validation, each turned in all ways.
    """

    objective = "cross_entropy_nats"

    def __init__(
        self,
        model: nn.Module,
        *,
        train: np.ndarray,
        validation: np.ndarray,
        device: torch.device,
        evaluation_batch_size: int,
    ) -> None:
        self.model, self.items = model, len(train)
        self.train, self.validation = (image_tensor(pictures).to(device) for pictures in (train, validation))
        self.evaluation_batch_size = evaluation_batch_size

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Mean cross-entropy of the training pictures at `indices`, each turned at random."""
        x_BCHW = self.train[torch.from_numpy(indices).to(self.train.device)]
        ways_B = batch_integers(ways(x_BCHW.shape[1:]), len(indices), device=x_BCHW.device)
        logits_BY = self.model(turned(x_BCHW, ways_B))
        accuracy = (logits_BY.detach().argmax(1) == ways_B).float().mean()
        return StepResult(loss=F.cross_entropy(logits_BY, ways_B), metrics={"accuracy": accuracy})

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Nothing to update."""
        return {}

    def validate(self) -> Mapping[str, float]:
        """Cross-entropy and accuracy in all ways of all validation pictures."""
        nats, right, asked = 0.0, 0, 0
        for x_BCHW in self.validation.split(self.evaluation_batch_size):
            pictures, ways_B = all_turned(x_BCHW)
            logits_BY = self.model(pictures)
            nats += F.cross_entropy(logits_BY, ways_B, reduction="sum").item()
            right += int((logits_BY.argmax(1) == ways_B).sum())
            asked += len(ways_B)
        return {"cross_entropy_nats": nats / asked, "accuracy": right / asked}
