"""The task of fitting a picture decoder to the codes of a finished codebook.

It lowers the absolute error and two losses that are balanced with it at the picture (`twostage.training.adversarial`):
the distance of features of the frozen encoder, and the verdict of a discriminator that is trained along. The codebook
is frozen, and its codes are those that were extracted once.

Shapes: N items, B items of a batch, C x H x W image, G codebooks, T the axes of the codes, Z x h x w what a decoder is
given of them.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.images.codec import ImageCodec
from stage1_vqvae.images.encoder_features import EncoderFeatures, FeatureStatistics, relative_frechet
from stage1_vqvae.images.networks import normalise
from stage1_vqvae.images.picture_decoder import PictureDecoder
from twostage.distributed import own_batches, sum_over_ranks
from twostage.errors import UsageError
from twostage.metrics.ratios import ratio
from twostage.metrics.sharpness import gradient_energy
from twostage.progress import say
from twostage.training.adversarial import (
    BLIND,
    balanced_gradient,
    descend,
    feature_distance,
    generator_loss,
    hinge_loss,
)
from twostage.training.task import StepResult


class PictureDecoderTask:
    """Train a picture decoder; the best model has reconstructions whose features are distributed most like the real.

    That is `feature_frechet` of validation images, see `encoder_features.relative_frechet`. The absolute error would
    choose the blurred pictures of the first steps. It is recorded beside it, as are the sharpness and the share of
    validation images that the discriminator tells from their reconstructions: 1 is all of them.

    Args:
        model: on the device where it trains.
        codec: whose codes they are, on the same device.
        train: integer images `[N, C, H, W]` on the same device.
        train_codes: int64 `[N, G, *T]` on the same device, or `[2 N, G, *T]` with those of mirrored images behind.
        validation, validation_codes: the same, without mirrored ones.
        feature_weight: of the distance of features, see `balanced_gradient`.
        adversarial_weight: of the discriminator's verdict; 0: no discriminator is trained.
        adversarial_start: steps before it counts; the discriminator learns meanwhile.
        evaluation_batch_size: items per validation pass.

    Raises:
        UsageError: codes do not fit the images.
    """

    objective = "feature_frechet"

    def __init__(
        self,
        model: PictureDecoder,
        *,
        codec: ImageCodec,
        train: Tensor,
        train_codes: Tensor,
        validation: Tensor,
        validation_codes: Tensor,
        feature_weight: float,
        adversarial_weight: float,
        adversarial_start: int,
        evaluation_batch_size: int,
    ) -> None:
        for images, codes, copies in ((train, train_codes, (1, 2)), (validation, validation_codes, (1,))):
            if len(codes) not in [copy * len(images) for copy in copies]:
                raise UsageError(
                    f"expected codes of {len(images)} images, got {len(codes)}: encode the images with this codebook"
                )
        self.model, self.codec = model, codec.eval()
        self.train, self.train_codes = train, train_codes
        self.validation, self.validation_codes = validation, validation_codes
        self.feature_weight, self.adversarial_weight = feature_weight, adversarial_weight
        self.adversarial_start, self.evaluation_batch_size = adversarial_start, evaluation_batch_size
        self.features = EncoderFeatures(codec)
        self.items = len(train_codes)
        self._said = False

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Losses of the training items at `indices`; those from N on are mirrored images."""
        rows = torch.from_numpy(indices).to(self.train.device)
        x_BCHW, mirrored_B = self.train[rows % len(self.train)], rows >= len(self.train)
        x_BCHW = normalise(torch.where(mirrored_B[:, None, None, None], x_BCHW.flip(-1), x_BCHW), self.model.levels)
        made_BCHW = self.model(self._vectors(self.train_codes[rows]))
        seen_BCHW = made_BCHW.detach().float().requires_grad_()
        error_B = (seen_BCHW - x_BCHW).abs().flatten(1).mean(1)
        metrics, others = {"absolute_error": error_B.detach().mean()}, list[tuple[float, Tensor]]()
        if self.feature_weight:
            with torch.no_grad():
                real = self.features(x_BCHW)
            distance_B = feature_distance(real, self.features(seen_BCHW))
            metrics["feature_distance"] = distance_B.detach().mean()
            others.append((self.feature_weight, distance_B))
        judging = None
        if self.adversarial_weight:
            judged_x, judged_made = self.model.discriminator(x_BCHW), self.model.discriminator(seen_BCHW)
            judging = hinge_loss(judged_x.verdicts, judged_made.verdicts).mean()
            metrics["discriminator_loss"] = judging.detach()
            if self.model.steps_done >= self.adversarial_start:
                others.append((self.adversarial_weight, generator_loss(judged_made.verdicts)))
        gradient = balanced_gradient(seen_BCHW, error_B, others)
        loss = descend(made_BCHW, gradient, value=error_B.mean(), discriminator=judging)
        return StepResult(loss=loss, metrics=metrics)

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Count the step."""
        self.model.count_step()
        return {}

    def validate(self) -> Mapping[str, float]:
        """The numbers that the class speaks of, over all validation images; says once if the discriminator is blind."""
        items, device, judges = len(self.validation), self.validation.device, self.adversarial_weight > 0
        numbers_5N = torch.zeros(5, items, dtype=torch.float64, device=device)
        real, made = (FeatureStatistics(self.features.widths, device) for _ in range(2))
        for rows in own_batches(items, self.evaluation_batch_size):
            x_BCHW = normalise(self.validation[rows], self.model.levels)
            made_BCHW = self.model(self._vectors(self.validation_codes[rows])).clamp(-1, 1)
            for statistics, images in ((real, x_BCHW), (made, made_BCHW)):
                statistics.add(self.features(images))
            energies = gradient_energy(x_BCHW), gradient_energy(made_BCHW)
            numbers_5N[:3, rows] = torch.stack([(made_BCHW - x_BCHW).abs().flatten(1).mean(1).double(), *energies])
            if judges:
                verdicts = [self.model.discriminator(images).verdicts for images in (x_BCHW, made_BCHW)]
                means = [each.flatten(1).mean(1) for each in verdicts]
                numbers_5N[3:, rows] = torch.stack([(means[0] > means[1]).double(), hinge_loss(*verdicts).double()])
        error, sharp, own_sharp, told, judging = sum_over_ranks(numbers_5N)[0].sum(1).tolist()
        numbers = {
            "feature_frechet": relative_frechet(made.gaussians(), real.gaussians()),
            "absolute_error": error / items,
            "sharpness": ratio(own_sharp, sharp) or 0.0,
        }
        if not judges:
            return numbers
        self._watch(judging / items)
        return numbers | {"told_apart": told / items, "discriminator_loss": judging / items}

    def _watch(self, judging: float) -> None:
        """Say once that the discriminator tells nothing apart, when its verdict counts."""
        if judging < BLIND or self._said or self.model.steps_done < self.adversarial_start:
            return
        self._said = True
        say(
            f"warning: the discriminator tells nothing apart (hinge loss {judging:.2f} of 2 on validation images), so "
            "that its verdict makes no picture better: lower decoder_training.learning_rate or "
            "picture_decoder.adversarial_weight, or raise picture_decoder.adversarial_start"
        )

    @torch.no_grad()
    def _vectors(self, codes_BGT: Tensor) -> Tensor:
        return self.codec.decoder_input(codes_BGT)
