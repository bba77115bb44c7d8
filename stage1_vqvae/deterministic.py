"""What models share whose latents are a function of the item: codecs and autoencoders."""

from typing import Protocol

from torch import Tensor

from stage1_vqvae.batch import Asked, Batch, Score
from twostage.errors import UsageError


class _Model(Protocol):
    def latents_of(self, batch: Batch, *, seed: int) -> Tensor: ...

    def log_prob_batch(self, batch: Batch, latents: Tensor, /) -> Tensor: ...


class Deterministic:
    """Answers of `Stage1Model` for latents without a distribution: the distortion at an item's own latents."""

    beta: None = None

    def score(self: _Model, batch: Batch, *, samples: int = 1, seed: int = 0) -> Score:
        """See `Stage1Model`; nothing is drawn, so neither number matters."""
        return Score(distortion=-self.log_prob_batch(batch, self.latents_of(batch, seed=seed)))

    def sample_latents(
        self, asked: Asked, *, seed: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
    ) -> Tensor:
        """Refused: the model has no distribution over latents.

        Raises:
            UsageError: always.
        """
        raise UsageError("this model has no distribution over its latents: draw them from a prior that was fitted")
