"""A trained run as one Python object: codes from the prior, images from the decoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from stage1_vqvae import VQVAE
from stage2_prior import PixelCNN, sample
from twostage.config.load import user_path
from twostage.config.model_names import MAIN_MODEL
from twostage.errors import UsageError

from ..runs.class_numbers import check_trained, trained_numbers
from ..runs.loading import LoadedPrior, LoadedStage1
from ..runs.run import Run
from .decoding import decode_in_batches

if TYPE_CHECKING:
    from .audio_two_stage import TwoStageAudio


Labels = int | Sequence[int] | Tensor | Literal["in turn"] | None
"""One label, one for each item, those with training items in turn, or None: no label, for a prior trained with label
dropout."""


@dataclass(frozen=True)
class TwoStageModel:
    """A trained codebook with its prior, ready to use; what `load_run` returns."""

    run: Run
    stage1: LoadedStage1
    prior: LoadedPrior
    device: torch.device

    @property
    def vqvae(self) -> VQVAE:
        assert isinstance(self.stage1.model, VQVAE)
        return self.stage1.model

    @property
    def pixelcnn(self) -> PixelCNN:
        return self.prior.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, by index."""
        return tuple(self.stage1.record["classes"])

    def generate(
        self,
        count: int,
        *,
        labels: Labels = "in turn",
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """Prior sample -> decoder: images `[count, C, H, W]` in levels, fp32, as `decode` makes them.

        Args:
            labels: one label, or `count` of them; "in turn" for those with training items one after another; None for
                no label, which a prior with classes takes only after label dropout.
            temperature, top_k, top_p, seed: see `stage2_prior.sample`.

        Raises:
            UsageError: the labels do not fit the count or the prior, or one has no training item.
        """
        codes = self.sample_codes(count, labels=labels, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        return self.decode(codes, seed=seed)

    def decode(self, codes_BGHW: Tensor, *, seed: int = 0) -> Tensor:
        """Images `[B, C, H, W]` in levels of codes: mean images, or samples from an autoregressive decoder."""
        return decode_in_batches(self.vqvae, codes_BGHW, batch_size=self.run.recipe.evaluation.batch_size, seed=seed)

    def _condition(self, count: int, labels: Labels) -> Tensor | None:
        """`[count, 1]`, or None for no label.

        Raises:
            UsageError: the labels do not fit the count or the prior, or one has no training item.
        """
        if not self.pixelcnn.classes:
            if labels is None or isinstance(labels, str):
                return None
            raise UsageError("expected no labels, because this prior knows none: leave them out")
        if labels is None:
            if self.pixelcnn.condition_optional:
                return None
            raise UsageError(
                "expected labels, because this prior was trained with labels only: give them, or train one with "
                "prior.label_dropout above 0"
            )
        classes = self.pixelcnn.classes[0]
        if isinstance(labels, str) and labels != "in turn":
            raise UsageError(f"expected labels as numbers, None or 'in turn', got {labels!r}")
        trained = trained_numbers(self.prior.record, "labels")
        in_turn = [trained[item % len(trained)] for item in range(count)] if isinstance(labels, str) else labels
        wanted = torch.as_tensor(in_turn)
        if wanted.ndim == 0:
            wanted = wanted.expand(count)
        if wanted.shape != (count,) or wanted.is_floating_point():
            raise UsageError(f"expected one label or {count} of them, got shape {tuple(wanted.shape)}, {wanted.dtype}")
        if not 0 <= int(wanted.min()) <= int(wanted.max()) < classes:
            raise UsageError(f"expected labels 0 to {classes - 1}, got {int(wanted.min())} to {int(wanted.max())}")
        check_trained(wanted.tolist(), self.classes, trained, what="labels")
        return wanted.long().to(self.device)[:, None]

    def sample_codes(
        self,
        count: int,
        *,
        labels: Labels = "in turn",
        known: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Codes `[count, G, h, w]` from the prior; arguments as in `generate` and `stage2_prior.sample`."""
        if count < 1:
            raise UsageError(f"expected a count of at least 1, got {count}")
        return sample(
            self.pixelcnn,
            count=count,
            condition=self._condition(count, labels),
            known=known,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            progress=progress,
            device=self.device,
        ).codes


def load_run(
    path: str | Path, *, model: str | None = None, device: str | torch.device = "cpu"
) -> "TwoStageModel | TwoStageAudio":
    """Load a trained codebook and its prior from a run folder.

    Args:
        path: the run folder.
        model: name of a discrete model of the run; the main one by default.
        device: where the networks live.

    Returns:
        A `TwoStageModel` of a run on images; of a run on recordings a `TwoStageAudio`, which looks for its prior and
        its WaveNet decoder when it needs them.

    Raises:
        UsageError: the model is continuous.
        RunError: something is missing, unfinished, damaged or does not belong together.
    """
    run, where, name = Run.open(user_path(str(path))), torch.device(device), model or MAIN_MODEL
    if not run.recipe.is_audio:
        return load_image_run(run, name, where)
    from .audio_two_stage import load_audio_run

    return load_audio_run(run, name, where)


def load_image_run(run: Run, name: str, device: torch.device) -> TwoStageModel:
    """`load_run` of an open run on images."""
    stage1 = run.stage1(name, device)
    if not isinstance(stage1.model, VQVAE):
        raise UsageError(f"model {name} has no codes and no learned prior; choose a vq-vae")
    return TwoStageModel(run=run, stage1=stage1, prior=run.prior(name, stage1, device), device=device)
