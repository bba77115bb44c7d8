"""From measured bits to the rows of the table: every finished model of a run, under every decoder, prior and bound."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from stage1_vqvae import SoundVAE, SoundVQVAE
from twostage.config.model_names import model_spec
from twostage.data.audio import AudioDataset, AudioSplit
from twostage.data.audio.spectral import LogMelSettings, log_mel_settings
from twostage.metrics.codebook_usage import codebook_usage
from twostage.metrics.length_tables import LabelTable, LengthTable, remainder_bits
from twostage.metrics.ratios import ratio
from twostage.metrics.statistics import evenly, ratio_error
from twostage.storage.codes import CodeFile

from ..bits.audio import (
    Device,
    convolutional_log_mel,
    gaussian_sound_bits,
    prior_bits,
    sampled_log_mel,
    shuffled_codes,
    sound_distortion,
    unigram_bits,
    wrong_log_mel,
)
from ..modality.audio import condition_of, lengths_of, speakers_of
from ..modality.audio_networks import most_codes
from ..runs.codes import extract_codes
from ..runs.loading import Loaded, LoadedDecoder, LoadedSound, parameter_count
from ..runs.run import Run, is_finished, training_cost
from .audio_rows import SoundRow


@dataclass(frozen=True)
class ScoredSound:
    """A row with the bits of every recording, for paired differences."""

    row: SoundRow
    bits: np.ndarray


@dataclass(frozen=True)
class Heard:
    """How far reconstructions are from their recordings."""

    log_mel_l1: float | None
    ratio: float | None
    items: int


class SoundScoring:
    """Scores models of one run on one split."""

    def __init__(self, *, run: Run, dataset: AudioDataset, split: str, device: torch.device) -> None:
        self.run, self.dataset, self.split = run, dataset, split
        self.where = Device(device=device, batch_samples=run.recipe.evaluation.batch_samples)
        self.settings: LogMelSettings = log_mel_settings(dataset.sample_rate_hz)
        self.stride = 2**run.recipe.sound.downsampling_layers

    @property
    def data(self) -> AudioSplit:
        return self.dataset.split(self.split)

    @cached_property
    def samples(self) -> np.ndarray:
        """Samples per recording, `[N]`."""
        return self.data.lengths

    @cached_property
    def wrong(self) -> np.ndarray:
        """Log-mel distance of another recording, `[N]`; of a single recording 0, its own."""
        return wrong_log_mel(self.data, settings=self.settings)

    @property
    def wrong_log_mel_l1(self) -> float | None:
        """Mean of `wrong`; None where there is no other recording."""
        return float(self.wrong.mean()) if len(self.wrong) > 1 else None

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

    def _told(self, *, label: bool, speaker: bool) -> str:
        """What of a recording is told, in words."""
        told = ["label"] if label and self.dataset.classes else []
        told += ["speaker"] if speaker and self.dataset.speakers else []
        return " and ".join(told) or "nothing"

    def score(self, name: str, stage1: LoadedSound) -> list[ScoredSound]:
        """Every row of a model."""
        if isinstance(stage1.model, SoundVAE):
            return self._gaussian(name, stage1, stage1.model)
        return self._codebook(name, Loaded(model=stage1.model, checkpoint=stage1.checkpoint))

    def _row(
        self, *, distortion: np.ndarray | None, rate: np.ndarray, length: np.ndarray, labels: np.ndarray, **fields: Any
    ) -> ScoredSound:
        """A row of bits `[N]` per recording; without a distortion, `rate` is distortion and rate together."""
        remainder = np.full(len(self.samples), remainder_bits(self.stride))
        side = length + remainder
        total = rate + side + labels + (0.0 if distortion is None else distortion)
        samples = self.samples.sum()
        seconds = samples / self.dataset.sample_rate_hz
        discrete = fields["kind"] == "vq-vae"
        row = SoundRow(
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
        return ScoredSound(row=row, bits=total)

    def _codebook(self, name: str, stage1: Loaded[SoundVQVAE]) -> list[ScoredSound]:
        """A row per decoder and prior."""
        run, model, where = self.run, stage1.model, self.where
        files = extract_codes(run, name, stage1, self.dataset, where.device)
        file = files[self.split]
        lengths = lengths_of(file)
        inside = np.arange(file.codes.shape[2]) < lengths[:, None]
        usage = codebook_usage(file.codes.transpose(0, 2, 1)[inside], codebook_size=model.codebook_size)
        shuffled = shuffled_codes(file.codes, lengths)
        decoder = run.decoder(name, stage1, where.device) if is_finished(run.decoder_folder(name)) else None
        rates = self._rates(name, stage1, files)
        scored = []
        for each in [None, decoder] if decoder is not None else [None]:
            network = None if each is None else each.model
            what = f"{name} distortion" + ("" if each is None else ", WaveNet decoder")
            distortion = sound_distortion(model, network, self.data, file.codes, where=where, label=what)
            swapped = sound_distortion(
                model, network, self.data, shuffled, where=where, label=f"{what}, shuffled codes"
            )
            of_others = float(swapped.sum() / self.samples.sum()) if len(swapped) > 1 else None
            heard = self._heard(model, each, file)
            cost = training_cost(run.stage1_folder(name))
            steps, seconds, parameters = cost.steps, cost.seconds, parameter_count(model)
            if each is not None:
                more = training_cost(run.decoder_folder(name))
                steps, seconds = steps + more.steps, seconds + more.seconds
                parameters += parameter_count(each.model)
            likelihood = (each or stage1).record["architecture"]["likelihood"]
            for rate in rates:
                labels = self.label_bits(label=rate.told, speaker=rate.told or model.speakers > 0)
                scored.append(
                    self._row(
                        distortion=distortion,
                        rate=rate.codes,
                        length=rate.length,
                        labels=labels if rate.told or model.speakers else np.zeros(len(labels)),
                        model=name,
                        kind="vq-vae",
                        codebook_update=model_spec(name, run.recipe).codebook_update,
                        bound="two-part",
                        prior=rate.prior,
                        decoder="convolutional" if each is None else "wavenet",
                        likelihood=likelihood,
                        alphabet=(model if each is None else each.model).likelihood.levels,
                        beta=None,
                        samples_k=None,
                        shuffled_distortion_bits_per_dim=of_others,
                        bits_per_code=float(rate.codes.sum() / (lengths.sum() * model.codebooks)),
                        log_mel_l1=heard.log_mel_l1,
                        log_mel_ratio=heard.ratio,
                        log_mel_items=heard.items,
                        codebook_perplexity=usage.perplexity,
                        codebook_used=usage.used,
                        codebook_size=model.codebook_size * model.codebooks,
                        parameters=parameters + rate.parameters,
                        steps=steps + rate.steps,
                        train_seconds=seconds + rate.seconds,
                        stage1_sha256=stage1.sha256,
                        prior_sha256=rate.sha256,
                        decoder_sha256=None if each is None else each.sha256,
                        rate_given=self._told(label=rate.told, speaker=rate.told),
                        distortion_given=self._told(label=False, speaker=model.speakers > 0),
                    )
                )
        return scored

    def _heard(self, model: SoundVQVAE, decoder: LoadedDecoder | None, file: CodeFile) -> Heard:
        """Log-mel distance of the reconstructions of a decoder: all of the convolutional one, samples of the other."""
        rows = np.arange(len(self.samples))
        if decoder is None:
            distance = convolutional_log_mel(model, self.data, file.codes, settings=self.settings, where=self.where)
        else:
            rows = evenly(len(rows), self.run.recipe.evaluation.sampled_items)
            if not len(rows):
                return Heard(None, None, 0)
            distance = sampled_log_mel(
                model,
                decoder.model,
                self.data,
                file.codes,
                rows,
                settings=self.settings,
                where=self.where,
                seed=self.run.recipe.seed,
            )
        return Heard(float(distance.mean()), ratio(distance.mean(), self.wrong[rows].mean()), len(rows))

    def _rates(self, name: str, stage1: Loaded[SoundVQVAE], files: dict[str, CodeFile]) -> list["_Rate"]:
        """Rates under the learned prior, where it is finished, the unigram and the uniform one."""
        run, file, train, model = self.run, files[self.split], files["train"], stage1.model
        lengths = lengths_of(file)
        uniform = lengths * model.codebooks * np.log2(model.codebook_size)
        unigram = unigram_bits(file.codes, lengths, train.codes, lengths_of(train), model.codebook_size)
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
        codes, ends = prior_bits(
            prior.model,
            file.codes,
            lengths,
            condition,
            device=self.where.device,
            batch_size=run.recipe.evaluation.batch_size,
        )
        cost = training_cost(run.prior_folder(name))
        learned = _Rate(
            "learned",
            codes,
            ends,
            told=bool(prior.model.classes),
            parameters=parameter_count(prior.model),
            steps=cost.steps,
            seconds=cost.seconds,
            sha256=prior.sha256,
        )
        return [learned, *rates]

    def _gaussian(self, name: str, stage1: LoadedSound, model: SoundVAE) -> list[ScoredSound]:
        """ELBO and importance-weighted bound."""
        settings = self.run.recipe.evaluation
        bits = gaussian_sound_bits(
            model, self.data, samples=settings.iwae_samples, seed=self.run.recipe.seed, where=self.where
        )
        distance = convolutional_log_mel(model, self.data, None, settings=self.settings, where=self.where)
        cost = training_cost(self.run.stage1_folder(name))
        shared: dict[str, Any] = {
            "length": self.table_bits,
            "labels": self.label_bits(label=False, speaker=True) if model.speakers else np.zeros(len(self.samples)),
            "model": name,
            "kind": "vae",
            "codebook_update": None,
            "prior": "gaussian",
            "decoder": "convolutional",
            "likelihood": stage1.record["architecture"]["likelihood"],
            "alphabet": model.likelihood.levels,
            "beta": model.beta,
            "samples_k": settings.iwae_samples,
            "shuffled_distortion_bits_per_dim": None,
            "bits_per_code": None,
            "log_mel_l1": float(distance.mean()),
            "log_mel_ratio": ratio(distance.mean(), self.wrong.mean()),
            "log_mel_items": len(distance),
            "codebook_perplexity": None,
            "codebook_used": None,
            "codebook_size": None,
            "parameters": parameter_count(model),
            "steps": cost.steps,
            "train_seconds": cost.seconds,
            "stage1_sha256": stage1.sha256,
            "prior_sha256": None,
            "decoder_sha256": None,
            "rate_given": "nothing",
            "distortion_given": self._told(label=False, speaker=model.speakers > 0),
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
