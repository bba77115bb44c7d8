"""Rows of `evaluate` on recordings: every way of scoring one trained model, under every decoder, prior and bound."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from stage1_vqvae import AudioVAE, AudioVQVAE
from twostage.config.model_names import model_spec
from twostage.data.audio import AudioDataset, AudioSplit
from twostage.metrics.codebook_usage import codebook_usage
from twostage.metrics.length_tables import LabelTable, LengthTable, remainder_bits
from twostage.metrics.statistics import ratio_error
from twostage.storage.codes import CodeFile

from ..bits.audio import (
    Device,
    audio_distortion,
    gaussian_audio_bits,
    swapped_codes,
)
from ..bits.rate import learned_rate, uniform_bits, unigram_bits
from ..modality.audio import condition_of, lengths_of, speakers_of
from ..modality.audio_networks import most_codes
from ..runs.codes import extract_codes
from ..runs.loading import Loaded, LoadedAudio, LoadedDecoder, parameter_count
from ..runs.run import Run, is_finished, training_cost
from .differences import Scored
from .log_mel import LogMel
from .rows import Row


class AudioRows:
    """What the rows of one evaluation of recordings share."""

    def __init__(self, *, run: Run, dataset: AudioDataset, split: str, device: torch.device) -> None:
        self.run, self.dataset, self.split = run, dataset, split
        self.where = Device(device=device, batch_samples=run.recipe.evaluation.batch_samples)
        self.log_mel = LogMel(run=run, data=self.data, sample_rate_hz=dataset.sample_rate_hz, where=self.where)
        self.stride = 2**run.recipe.audio.downsampling_layers

    @property
    def data(self) -> AudioSplit:
        return self.dataset.split(self.split)

    @cached_property
    def samples(self) -> np.ndarray:
        """Samples per recording, `[N]`."""
        return self.data.lengths

    @cached_property
    def table_bits(self) -> np.ndarray:
        """Bits `[N]` of the number of codes, by a table of the training recordings."""
        most = most_codes(self.run.recipe, self.dataset, stride=self.stride)
        table = LengthTable.of(-(-self.dataset.train.lengths // self.stride), max_length=most)
        return table.bits(-(-self.samples // self.stride))

    def label_bits(self, *, label: bool, speaker: bool) -> np.ndarray:
        """Bits `[N]` of what is told: the label, the speaker, or both."""
        classes = len(self.dataset.classes) if label else 0
        speakers = len(self.dataset.speakers) if speaker else 0
        train = self.dataset.train
        table = LabelTable.of(
            train.labels if classes else np.zeros_like(train.labels),
            train.speakers if speakers else np.zeros_like(train.speakers),
            classes=max(classes, 1),
            speakers=max(speakers, 1),
        )
        return table.bits(
            self.data.labels if classes else np.zeros_like(self.data.labels),
            self.data.speakers if speakers else np.zeros_like(self.data.speakers),
        )

    def _conditioned_on(self, *, label: bool, speaker: bool) -> str:
        """What of a recording is told, in words."""
        told = ["label"] if label and self.dataset.classes else []
        told += ["speaker"] if speaker and self.dataset.speakers else []
        return " and ".join(told) or "nothing"

    def score(self, name: str, stage1: LoadedAudio) -> list[Scored]:
        """Every row of a model."""
        if isinstance(stage1.model, AudioVAE):
            return self._gaussian(name, stage1, stage1.model)
        return self._codebook(name, Loaded(model=stage1.model, checkpoint=stage1.checkpoint))

    def _row(
        self, *, distortion: np.ndarray | None, rate: np.ndarray, length: np.ndarray, labels: np.ndarray, **fields: Any
    ) -> Scored:
        """A row of bits `[N]` per recording; without a distortion, `rate` is distortion and rate together."""
        remainder = np.full(len(self.samples), remainder_bits(self.stride))
        side = length + remainder
        total = rate + side + labels + (0.0 if distortion is None else distortion)
        samples = self.samples.sum()
        seconds = samples / self.dataset.sample_rate_hz
        discrete = fields["kind"] == "vq-vae"
        row = Row(
            bits_per_dim=float(total.sum() / samples),
            standard_error=ratio_error(total, self.samples),
            distortion_bits_per_dim=None if distortion is None else float(distortion.sum() / samples),
            rate_bits_per_dim=None if distortion is None else float(rate.sum() / samples),
            length_bits_per_dim=float(side.sum() / samples),
            label_bits_per_dim=float(labels.sum() / samples),
            labels="paid" if labels.any() else "none",
            code_bits_per_second=float((rate + side + labels).sum() / seconds) if discrete else None,
            **fields,
        )
        return Scored(row=row, bits_N=total, sizes_N=self.samples)

    def _codebook(self, name: str, stage1: Loaded[AudioVQVAE]) -> list[Scored]:
        """A row per decoder and prior."""
        run, model = self.run, stage1.model
        files = extract_codes(run, name, stage1, self.dataset, self.where.device)
        codes, lengths = files[self.split].codes, lengths_of(files[self.split])
        inside = np.arange(codes.shape[2]) < lengths[:, None]
        usage = codebook_usage(codes.transpose(0, 2, 1)[inside], codebook_size=model.codebook_size)
        decoders: list[LoadedDecoder | None] = [None]
        if is_finished(run.decoder_folder(name)):
            decoders.append(run.decoder(name, stage1, self.where.device))
        rates = self._rates(name, stage1, files)
        scored = []
        for decoder in decoders:
            decoded = self._decoded(name, stage1, decoder, files[self.split])
            for rate in rates:
                labels = self.label_bits(label=rate.told, speaker=rate.told or model.speakers > 0)
                fields = {
                    **decoded,
                    "parameters": decoded["parameters"] + rate.parameters,
                    "steps": decoded["steps"] + rate.steps,
                    "train_seconds": decoded["train_seconds"] + rate.seconds,
                }
                scored.append(
                    self._row(
                        rate=rate.codes,
                        length=rate.length,
                        labels=labels if rate.told or model.speakers else np.zeros(len(labels)),
                        kind="vq-vae",
                        codebook_update=model_spec(name, run.recipe).codebook_update,
                        bound="two-part",
                        prior=rate.prior,
                        bits_per_code=float(rate.codes.sum() / (lengths.sum() * model.codebooks)),
                        codebook_perplexity=usage.perplexity,
                        codebook_used=usage.used,
                        codebook_size=model.codebook_size * model.codebooks,
                        prior_sha256=rate.sha256,
                        rate_given=self._conditioned_on(label=rate.told, speaker=rate.told),
                        **fields,
                    )
                )
        return scored

    def _decoded(
        self, name: str, stage1: Loaded[AudioVQVAE], decoder: LoadedDecoder | None, file: CodeFile
    ) -> dict[str, Any]:
        """Fields of the rows of one decoder, the prior's apart, and the bits `[N]` of its distortion."""
        model, network = stage1.model, None if decoder is None else decoder.model

        def bits(codes_NGT: np.ndarray, what: str) -> np.ndarray:
            label = f"{name} distortion" + ("" if network is None else ", WaveNet decoder") + what
            return audio_distortion(model, network, self.data, codes_NGT, where=self.where, label=label)

        distortion = bits(file.codes, "")
        swapped = bits(swapped_codes(file.codes, lengths_of(file)), ", swapped codes")
        if network is None:
            log_mel = self.log_mel.own(model, file.codes)
        else:
            log_mel = self.log_mel.sampled(model, network, file.codes)
        costs = [training_cost(self.run.stage1_folder(name))]
        costs += [] if decoder is None else [training_cost(self.run.decoder_folder(name))]
        return {
            "distortion": distortion,
            "model": name,
            "decoder": "convolutional" if decoder is None else "wavenet",
            "likelihood": (decoder or stage1).record["architecture"]["likelihood"],
            "alphabet": (network or model).likelihood.levels,
            "swapped_distortion_bits_per_dim": (
                float(swapped.sum() / self.samples.sum()) if len(swapped) > 1 else None
            ),
            **log_mel,
            "parameters": parameter_count(model) + (0 if network is None else parameter_count(network)),
            "steps": sum(cost.steps for cost in costs),
            "train_seconds": sum(cost.seconds for cost in costs),
            "stage1_sha256": stage1.sha256,
            "decoder_sha256": None if decoder is None else decoder.sha256,
            "distortion_given": self._conditioned_on(label=False, speaker=model.speakers > 0),
        }

    def _rates(self, name: str, stage1: Loaded[AudioVQVAE], files: dict[str, CodeFile]) -> list["_Rate"]:
        """Rates under the learned prior, where it is finished, the unigram and the uniform one."""
        run, file, train, model = self.run, files[self.split], files["train"], stage1.model
        lengths = lengths_of(file)
        uniform = uniform_bits(file.codes, model.codebook_size, lengths)
        unigram = unigram_bits(file.codes, train.codes, model.codebook_size, lengths, lengths_of(train))
        rates = [
            _Rate("unigram", unigram, self.table_bits),
            _Rate("uniform", uniform, self.table_bits),
        ]
        if not is_finished(run.prior_folder(name)):
            return rates
        prior = run.prior(name, stage1, self.where.device)
        condition = condition_of(
            file.labels, speakers_of(file), (len(self.dataset.classes), len(self.dataset.speakers))
        )
        rate = learned_rate(
            prior.model,
            file.codes,
            lengths,
            condition=condition if prior.model.classes else None,
            device=self.where.device,
            batch_size=run.recipe.evaluation.batch_size,
        )
        cost = training_cost(run.prior_folder(name))
        learned = _Rate(
            "learned",
            rate.bits,
            rate.end_bits,
            told=bool(prior.model.classes),
            parameters=parameter_count(prior.model),
            steps=cost.steps,
            seconds=cost.seconds,
            sha256=prior.sha256,
        )
        return [learned, *rates]

    def _gaussian(self, name: str, stage1: LoadedAudio, model: AudioVAE) -> list[Scored]:
        """ELBO and importance-weighted bound."""
        settings = self.run.recipe.evaluation
        bits = gaussian_audio_bits(
            model, self.data, samples=settings.iwae_samples, seed=self.run.recipe.seed, where=self.where
        )
        cost = training_cost(self.run.stage1_folder(name))
        shared: dict[str, Any] = {
            "length": self.table_bits,
            "labels": self.label_bits(label=False, speaker=True) if model.speakers else np.zeros(len(self.samples)),
            "model": name,
            "kind": "vae",
            "prior": "gaussian",
            "decoder": "convolutional",
            "likelihood": stage1.record["architecture"]["likelihood"],
            "alphabet": model.likelihood.levels,
            "beta": model.beta,
            "samples_k": settings.iwae_samples,
            **self.log_mel.own(model, None),
            "parameters": parameter_count(model),
            "steps": cost.steps,
            "train_seconds": cost.seconds,
            "stage1_sha256": stage1.sha256,
            "rate_given": "nothing",
            "distortion_given": self._conditioned_on(label=False, speaker=model.speakers > 0),
        }
        return [
            self._row(distortion=bits.distortion, rate=bits.rate, bound="elbo", **shared),
            self._row(distortion=None, rate=bits.importance_weighted, bound="iwae", **shared),
        ]


@dataclass(frozen=True)
class _Rate:
    """One way of paying for the codes of every recording; bits `[N]`."""

    prior: str
    codes: np.ndarray
    length: np.ndarray
    told: bool = False
    """Whether label and speaker are told."""
    parameters: int = 0
    steps: int = 0
    seconds: float = 0.0
    sha256: str | None = None
