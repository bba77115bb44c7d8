"""The task of fitting a WaveNet decoder to the codes of a finished codebook.

The codebook is frozen: a WaveNet that is trained together with it learns to do without codes before these say anything.
Codes are those of whole recordings, encoded once. A training segment begins with a code, and its condition is that of
the whole recording, for which the codes to both sides are read along. The samples before a segment are not: the network
sees silence there, as at the beginning of a recording. To read a receptive field of them and not to learn from it would
cost half of the time at segments of its length, for the sake of the first few samples, where the difference is seen.

Shapes: N recordings, B items, S samples, G codebooks, T codes, W codes of a segment and to both sides of it, X vectors
of the condition.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.audio.vqvae import AudioVQVAE
from stage1_vqvae.audio.wavenet_decoder import REACH, VECTORS_PER_CODE, WaveNetDecoder
from twostage.data.audio import AudioSplit, length_batches, whole_batch
from twostage.data.audio.segments import segment_count, segments_at
from twostage.errors import UsageError
from twostage.noise import batch_integers
from twostage.training.task import StepResult

SWAPPED_RECORDINGS = 32
"""Validation recordings, spread over all lengths, that are also scored with the codes of another."""


class WaveNetDecoderTask:
    """Train a WaveNet decoder; the best model has the lowest validation distortion in bits/sample.

    The rate of the codes, the same whatever decodes them, is no part of it. What the codes are worth is recorded as
    `swapped_codes_cost_bits_per_sample`: the bits more that recordings take with the codes of others.

    Args:
        model: on the device where it trains.
        vqvae: whose codes they are, on the same device.
        train: recordings of which segments are read.
        train_codes: int64 `[N, G, T]`, codes of every recording; what they are behind its end does not matter.
        validation, validation_codes: the same, read whole.
        segment_samples: of a training segment, a multiple of the stride.
        batch_samples: most samples of a validation batch, padding included.

    Raises:
        UsageError: codebook, codes or segments do not fit the decoder.
    """

    objective = "distortion_bits_per_sample"

    def __init__(
        self,
        model: WaveNetDecoder,
        *,
        vqvae: AudioVQVAE,
        train: AudioSplit,
        train_codes: np.ndarray,
        validation: AudioSplit,
        validation_codes: np.ndarray,
        segment_samples: int,
        batch_samples: int,
    ) -> None:
        if model.stride != vqvae.stride:
            raise UsageError(f"expected a decoder of {vqvae.stride} samples per code, got one of {model.stride}")
        if segment_samples < model.stride or segment_samples % model.stride:
            raise UsageError(
                f"segment_samples must be a multiple of the {model.stride} samples per code, not {segment_samples}"
            )
        for split, codes in ((train, train_codes), (validation, validation_codes)):
            longest = -(-int(split.lengths.max()) // model.stride)
            if codes.shape[:2] != (len(split), vqvae.codebooks) or codes.shape[2] < longest:
                raise UsageError(
                    f"expected codes of shape [{len(split)}, {vqvae.codebooks}, {longest} or more] for these "
                    f"recordings, got {list(codes.shape)}: encode them with this codebook"
                )
        self.model, self.vqvae = model, vqvae.eval()
        self.train, self.train_codes = train, train_codes
        self.validation, self.validation_codes = validation, validation_codes
        self.segment_samples, self.batch_samples = segment_samples, batch_samples
        self.device = next(model.parameters()).device
        self.items = segment_count(train, segment_samples=segment_samples)

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Nats per real sample of training segments at places `indices` of an epoch; torch says where they begin."""
        stride = self.model.stride
        draws_B = batch_integers(1 << 32, len(indices), device=torch.device("cpu")).numpy()
        batch = segments_at(self.train, indices, draws_B, segment_samples=self.segment_samples, multiple=stride)
        condition_BFX = self._condition(batch.items, batch.offsets // stride)
        log_prob_BS = self.model.sample_log_prob(torch.from_numpy(batch.samples).to(self.device), condition_BFX)
        mask_BS = torch.from_numpy(batch.mask).to(self.device)
        samples = mask_BS.sum()
        loss = -log_prob_BS.masked_fill(~mask_BS, 0.0).sum() / samples
        metrics = {"distortion_bits_per_sample": loss.detach() / math.log(2)}
        return StepResult(loss=loss, metrics=metrics, weight=float(samples))

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Nothing to update."""
        return {}

    def validate(self) -> Mapping[str, float]:
        """Bits per sample of all validation recordings, and how many more some take with the codes of others."""
        lengths_N = self.validation.lengths
        nats_N, swapped_nats_N = np.zeros(len(lengths_N)), np.zeros(len(lengths_N))
        for items_B in length_batches(lengths_N, most_samples=self.batch_samples):
            nats_N[items_B] = self._nats(items_B, self.validation_codes[items_B])
        by_length_N = np.argsort(-lengths_N, kind="stable")
        some_M = by_length_N[:: -(-len(by_length_N) // SWAPPED_RECORDINGS)]
        others = dict(zip(by_length_N.tolist(), np.roll(by_length_N, 1).tolist(), strict=True))
        for batch_B in length_batches(lengths_N[some_M], most_samples=self.batch_samples):
            items_B = some_M[batch_B]
            swapped_nats_N[items_B] = self._nats(items_B, self._swapped(items_B, [others[int(i)] for i in items_B]))
        cost_nats = (swapped_nats_N[some_M] - nats_N[some_M]).sum() / lengths_N[some_M].sum()
        return {
            "distortion_bits_per_sample": nats_N.sum() / (lengths_N.sum() * math.log(2)),
            "swapped_codes_cost_bits_per_sample": cost_nats / math.log(2),
        }

    def _condition(self, items_B: np.ndarray, first_B: np.ndarray) -> Tensor:
        """What conditions the segments that begin with codes `first_B`, `[B, F, X]`: that of the whole recordings."""
        width = self.segment_samples // self.model.stride + 2 * REACH
        place_BW = first_B[:, None] - REACH + np.arange(width)
        count_B = -(-self.train.lengths[items_B] // self.model.stride)
        inside_BW = (place_BW >= 0) & (place_BW < count_B[:, None])
        codes_BWG = self.train_codes[items_B[:, None], :, np.where(inside_BW, place_BW, 0)]
        inside_B1W = torch.from_numpy(inside_BW)[:, None].to(self.device)
        condition_BFX = self.model.condition(
            self._vectors(codes_BWG.transpose(0, 2, 1)), inside_B1W, self._speakers(self.train, items_B)
        )
        margin = REACH * VECTORS_PER_CODE
        return condition_BFX[:, :, margin:-margin]

    def _nats(self, items_B: np.ndarray, codes_BGT: np.ndarray) -> np.ndarray:
        """-log p of validation recordings given codes, `[B]`."""
        batch = whole_batch(self.validation, items_B, multiple=self.model.stride)
        log_prob_B = self.model.log_prob(
            torch.from_numpy(batch.samples).to(self.device),
            torch.from_numpy(batch.mask).to(self.device),
            self._vectors(codes_BGT[:, :, : batch.samples.shape[1] // self.model.stride]),
            self._speakers(self.validation, items_B),
        )
        return -log_prob_B.double().cpu().numpy()

    def _swapped(self, items_B: np.ndarray, others_B: list[int]) -> np.ndarray:
        """Codes of other recordings, `[B, G, T]`, repeated or cut to the lengths."""
        counts_N = -(-self.validation.lengths // self.model.stride)
        codes_BGT = np.zeros_like(self.validation_codes[items_B])
        for row, (item, other) in enumerate(zip(items_B, others_B, strict=True)):
            place_T = np.arange(counts_N[item]) % counts_N[other]
            codes_BGT[row, :, : counts_N[item]] = self.validation_codes[other][:, place_T]
        return codes_BGT

    @torch.no_grad()
    def _vectors(self, codes_BGT: np.ndarray) -> Tensor:
        return self.vqvae.condition_vectors(torch.from_numpy(codes_BGT).to(self.device))

    def _speakers(self, split: AudioSplit, items_B: np.ndarray) -> Tensor | None:
        return torch.from_numpy(split.speakers[items_B]).to(self.device) if self.model.speakers else None
