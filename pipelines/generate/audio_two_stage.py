"""A trained run on recordings as an object: what `load_run` returns, and what the verbs of the command line call.

Shapes: N recordings, S samples, G codebooks, T positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import AudioVQVAE
from stage2_prior import sample
from twostage.errors import UsageError
from twostage.progress import Progress
from twostage.storage.codes import CodeFile

from ..modality.audio_arrays import arrays_at, split_of
from ..runs.audio_codes import check_audio_codes, encode_recordings
from ..runs.loading import Loaded, LoadedWaveNet
from ..runs.run import Run
from .asked import Labels, Speakers, asked_for, codes_in, stated_speakers, voices_for
from .voices import Voice, voice_of

DecoderName = Literal["convolutional", "wavenet"]


@dataclass(frozen=True)
class Sound:
    """A recording that a model made."""

    samples: np.ndarray
    """int16 [S]."""
    sample_rate_hz: int
    label: str | None = None
    """What the prior was asked to say; None where it was told no label."""
    speaker: str | None = None
    """In whose voice; None where the data have no speakers."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate_hz


@dataclass(frozen=True)
class TwoStageAudio:
    """A trained codebook of recordings, with its prior and its WaveNet decoder if they are trained.

    Both are loaded when they are first needed, and once. Recordings go in as arrays `[S]`, one or a list of them:
    int16, or floats from -1 to 1, at the rate given or else at the run's own (`sample_rate_hz`). They come out as
    `Sound`s of the run's rate. Speakers and labels are given by name or number; `decoder` is `convolutional`, or
    `wavenet`, which draws sample after sample. Same seed, same samples: those of the verb of the same name.
    """

    run: Run
    name: str
    """Of the model within the run."""
    stage1: Loaded[AudioVQVAE]
    device: torch.device

    @property
    def vqvae(self) -> AudioVQVAE:
        return self.stage1.model

    @property
    def sample_rate_hz(self) -> int:
        return int(self.stage1.record["sample_rate_hz"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, by number."""
        return tuple(self.stage1.record["classes"])

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers, by number, held-out ones included."""
        return tuple(self.stage1.record["speakers"])

    @cached_property
    def prior(self) -> LoadedWaveNet:
        """The trained prior.

        Raises:
            RunError: it is missing, unfinished, damaged, or belongs to another codebook.
        """
        return self.run.prior(self.name, self.stage1, self.device)

    @cached_property
    def _wavenet(self) -> Voice:
        return voice_of(self.run, self.name, self.stage1, "wavenet", self.device)

    def voice(self, decoder: str) -> Voice:
        """The codebook with the decoder of that name.

        Raises:
            UsageError: there is no such decoder.
            RunError: it is missing, unfinished, damaged, or belongs to another codebook.
        """
        if decoder not in ("convolutional", "wavenet"):
            raise UsageError(f"expected the decoder convolutional or wavenet, got {decoder!r}")
        if decoder == "wavenet":
            return self._wavenet
        return voice_of(self.run, self.name, self.stage1, decoder, self.device)

    def generate(
        self,
        count: int,
        *,
        labels: Labels = "in turn",
        speakers: Speakers = "in turn",
        seconds: float | None = None,
        decoder: DecoderName = "convolutional",
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Sound]:
        """New sounds: prior sample -> decoder.

        Args:
            count: how many.
            labels: what they say: one label, `count` of them, "in turn" for the labels one after another, or None for
                no label, which a prior with labels takes only after label dropout.
            speakers: whose voice, likewise, of those heard in training; None is not among the choices.
            seconds: length of each, rounded up to whole codes; None lets the prior end them.
            decoder: which decoder speaks.
            temperature, top_k, top_p, seed: see `stage2_prior.sample`.

        Raises:
            UsageError: an argument is out of its range or does not fit the prior.
            RunError: the prior or the decoder is missing, unfinished, damaged, or belongs to another codebook.
        """
        voice = self.voice(decoder)
        length = None if seconds is None else codes_in(seconds, self.prior, self.vqvae.stride)
        asked = asked_for(count, self.prior, labels=labels, speakers=speakers)
        most = (length or self.prior.model.max_length) * self.vqvae.codebooks
        with Progress(f"{self.name} codes", total=count * most, unit="code") as bar:
            drawn = sample(
                self.prior.model,
                count=count,
                condition=None if asked.condition_NA is None else asked.condition_NA.to(self.device),
                length=length,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                seed=seed,
                device=self.device,
                progress=lambda done, _: bar.advance(done - bar.done),
            )
        assert drawn.lengths is not None
        samples_N = drawn.lengths * self.vqvae.stride
        return self._speak(voice, drawn.codes, samples_N, asked.speakers, seed=seed, labels=asked.labels)

    def encode(
        self,
        recordings: object,
        *,
        sample_rate_hz: int | None = None,
        speakers: str | int | Sequence[str | int | None] | None = None,
        names: Sequence[str] = (),
    ) -> CodeFile:
        """Recordings to codes, with their speakers and exact lengths; `twostage.storage.codes.save_codes` writes them.

        Args:
            recordings: one array, or a list of them.
            sample_rate_hz: their rate; None: the run's.
            speakers: who speaks: one for all, or one for each, None where that is not known. Codes are the same
                whoever speaks, but `decode` has to know.
            names: plain names without suffix, all different, one for each; or none.

        Raises:
            UsageError: an array is no mono recording, or speakers or names do not fit.
        """
        split = split_of(arrays_at(recordings, sample_rate_hz or self.sample_rate_hz, self.sample_rate_hz))
        return encode_recordings(
            self.stage1,
            self.name,
            split,
            speakers_N=stated_speakers(speakers, self.speakers, len(split)),
            names=tuple(names),
            batch_samples=self.run.recipe.evaluation.batch_samples,
            device=self.device,
        )

    def decode(
        self,
        codes: CodeFile,
        *,
        speakers: str | int | Sequence[str | int] | None = None,
        decoder: DecoderName = "convolutional",
        seed: int = 0,
    ) -> list[Sound]:
        """Codes to recordings, each in its own voice and of its own number of samples.

        Args:
            codes: of `encode`, or of `twostage.storage.codes.load_codes`.
            speakers: whose voice instead: one for all, or one for each.
            decoder: which decoder speaks.
            seed: of what the WaveNet decoder draws.

        Raises:
            UsageError: the voice of an item is not known, or was never heard in training.
            RunError: the codes are not of this codebook, or the decoder is missing, unfinished or damaged.
        """
        check_audio_codes(codes, self.name, self.stage1)
        voice, voices = self.voice(decoder), voices_for(codes, self.stage1.record, speakers)
        assert codes.samples is not None
        return self._speak(
            voice,
            torch.from_numpy(codes.codes).to(self.device),
            torch.from_numpy(codes.samples).to(self.device),
            voices,
            seed=seed,
        )

    def convert(
        self,
        recordings: object,
        speakers: str | int | Sequence[str | int],
        *,
        sample_rate_hz: int | None = None,
        decoder: DecoderName = "convolutional",
        seed: int = 0,
    ) -> list[Sound]:
        """Recordings in another voice: their codes, decoded for another speaker. Arguments as of `encode` and `decode`.

        Raises:
            UsageError: an array is no mono recording, or there is no such voice.
            RunError: the decoder is missing, unfinished or damaged.
        """
        codes = self.encode(recordings, sample_rate_hz=sample_rate_hz)
        return self.decode(codes, speakers=speakers, decoder=decoder, seed=seed)

    def reconstruct(
        self,
        recordings: object,
        *,
        speakers: str | int | Sequence[str | int] | None = None,
        sample_rate_hz: int | None = None,
        decoder: DecoderName = "convolutional",
        seed: int = 0,
    ) -> list[Sound]:
        """Recordings through encoder, codebook and decoder, in the voices of their `speakers`.

        Raises:
            UsageError: an array is no mono recording, or it is not known who speaks.
            RunError: the decoder is missing, unfinished or damaged.
        """
        codes = self.encode(recordings, sample_rate_hz=sample_rate_hz, speakers=speakers)
        return self.decode(codes, decoder=decoder, seed=seed)

    def _speak(
        self,
        voice: Voice,
        codes_NGT: Tensor,
        samples_N: Tensor,
        voices: list[int],
        *,
        seed: int,
        labels: Sequence[int] = (),
    ) -> list[Sound]:
        speaker_N = torch.tensor(voices, device=self.device) if voices else None
        sounds = voice.speak(codes_NGT, samples_N, speaker_N, seed=seed)
        return [
            Sound(
                samples=sound_S,
                sample_rate_hz=self.sample_rate_hz,
                label=self.classes[labels[item]] if labels else None,
                speaker=self.speakers[voices[item]] if voices else None,
            )
            for item, sound_S in enumerate(sounds)
        ]


def load_audio_run(run: Run, name: str, device: torch.device) -> TwoStageAudio:
    """A model of a run on recordings; its prior and WaveNet decoder are looked for when they are needed.

    Raises:
        UsageError: the model is continuous.
        RunError: its codebook is missing, unfinished or damaged.
    """
    return TwoStageAudio(run=run, name=name, stage1=run.codebook(name, device), device=device)
