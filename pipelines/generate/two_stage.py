"""A trained run as one Python object: what `load_run` returns, with a method for every verb on items."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twostage.config.load import user_path
from twostage.storage.codes import CodeFile

from ..runs.codes import check_codes, encode_items
from ..runs.run import Run
from .asked import (
    Labels,
    Speakers,
    Wanted,
    labels_for,
    own_voices,
    stated_speakers,
    voices_for,
    wanted_from,
)
from .drawing import Drawing, check_drawing, check_guidance, draw, draw_codes, source_of
from .trained import Trained

Voices = str | int | Sequence[str | int] | None


@dataclass(frozen=True)
class TwoStage(Trained):
    """A trained model of a run, ready to use; its prior and its second decoder are loaded when they are first needed.

    Images go in as integer levels, `[N, C, H, W]`, `[C, H, W]` or a list of these, and come out as fp32 tensors
    `[N, C, H, W]` in levels, on the CPU. Recordings go in as arrays `[S]`, one or a list of them: int16, or floats from
    -1 to 1, at the rate given or else at the run's own (`sample_rate_hz`); they come out as `Sound`s of the run's rate.

    Labels and speakers are given by name or number. `decoder` is `convolutional`, the model's own, or, of recordings,
    `wavenet`, which draws sample after sample. Same seed, same items: those of the verb of the same name.
    """

    @property
    def vqvae(self) -> Any:
        """Stage one of a model with codes."""
        return self.model

    @property
    def pixelcnn(self) -> Any:
        """The network of the prior."""
        return self.prior.model

    @property
    def sample_rate_hz(self) -> int:
        """Of recordings."""
        return int(self.record["sample_rate_hz"])

    def wanted(
        self,
        count: int,
        labels: Labels = "in turn",
        speakers: Speakers = "in turn",
        *,
        flags: tuple[str, str] = ("labels", "speakers"),
    ) -> Wanted:
        """What new items are to be: see `wanted_from`."""
        return wanted_from(count, source_of(self), labels=labels, speakers=speakers, flags=flags)

    def generate(
        self,
        count: int,
        *,
        labels: Labels = "in turn",
        speakers: Speakers = "in turn",
        seconds: float | None = None,
        decoder: str = "convolutional",
        levels: int | None = None,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float | None = None,
        guidance: float | None = None,
        seed: int = 0,
    ) -> Any:
        """New items: prior sample -> decoder, or latents of a VAE or of VIMCO's table -> decoder.

        Args:
            count: how many.
            labels: one label, `count` of them, "in turn" for those with training items one after another, or None for
                no label, which a prior with labels takes only after label dropout.
            speakers: whose voice, likewise, of those heard in training; None is not among the choices.
            seconds: length of each recording, rounded up to whole codes; None lets the prior end them, and gives
                recordings of a VAE the lengths of the training recordings in turn.
            decoder: which decoder.
            levels: of a residual quantiser, how many of the first codes of every position it is given; None: all.
            temperature, top_k, top_p, guidance: see `stage2_prior.sample`. None of them given: as `evaluate` chose on
                validation items, or 1, 1 and 1; one given: the others are 1.
            seed: of codes and, where the decoder is autoregressive, of pixels or sound.

        Raises:
            UsageError: an argument is out of its range or does not fit the model, or it has nothing to draw from.
            RunError: the prior or the decoder is missing, unfinished, damaged, or belongs to another codebook.
            DataError: the training recordings are needed for their lengths and cannot be read.
        """
        how = Drawing(
            seconds=seconds,
            decoder=decoder,
            levels=levels,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            guidance=guidance,
            seed=seed,
        )
        check_drawing(self, how)
        wanted = self.wanted(count, labels, speakers)
        check_guidance(how, wanted)
        return self.files.handed(draw(self, count, wanted, how), self.record, wanted.labels, wanted.speakers)

    def sample_codes(
        self, count: int, *, labels: Labels = "in turn", speakers: Speakers = "in turn", **drawing: Any
    ) -> Tensor:
        """Codes `[count, G, *T]` of new items from the prior, 0 behind the end of those that have one.

        `drawing`: `known`, the first rows of the codes of every item, which are kept, or of a hierarchy all codes and a
        `known_mask` of those that are; and arguments of `generate`.
        """
        how = Drawing(**drawing)
        check_drawing(self, how)
        return draw_codes(self, count, self.wanted(count, labels, speakers), how).codes

    def encode(
        self,
        items: object,
        *,
        sample_rate_hz: int | None = None,
        speakers: str | int | Sequence[str | int | None] | None = None,
        names: Sequence[str] = (),
    ) -> CodeFile:
        """Items to codes, of recordings with their speakers and lengths; `twostage.save_codes` writes them.

        Args:
            items: images or recordings.
            sample_rate_hz: rate of the recordings; None: the run's.
            speakers: who speaks: one for all, or one for each, None where that is not known. Codes are the same
                whoever speaks, but `decode` has to know.
            names: plain names without suffix, all different, one for each; or none.

        Raises:
            UsageError: the items, speakers or names do not fit, or the model has no codes.
        """
        split = self.files.split_of(self.files.arrays(items, self.record, sample_rate_hz))
        stated = stated_speakers(speakers, self.speakers, len(split))
        return encode_items(
            self.run, self.name, self.stage1, split, speakers_N=stated, names=tuple(names), device=self.device
        )

    def decode(
        self,
        codes: CodeFile | Tensor | np.ndarray,
        *,
        speakers: Voices = None,
        decoder: str = "convolutional",
        levels: int | None = None,
        seed: int = 0,
    ) -> Any:
        """Codes to items, recordings each in its own voice and of its own number of samples.

        Args:
            codes: of `encode`, or of `twostage.load_codes`; or codes of this codebook `[N, G, *T]`, of recordings all
                as long as the codes.
            speakers: whose voice, instead of the items' own: one for all, or one for each.
            decoder: which decoder.
            levels: as of `generate`.
            seed: of what an autoregressive decoder draws.

        Raises:
            UsageError: the voice of an item is not known, or was never heard in training.
            RunError: the codes are not of this codebook, or the decoder is missing, unfinished or damaged.
        """
        if isinstance(codes, CodeFile):
            check_codes(codes, self.run, self.name, self.stage1)
            codes_NGT, lengths_N, own_N, names = codes.codes, codes.samples, codes.speakers, codes.header.names
        else:
            codes_NGT, names = np.asarray(codes.cpu() if isinstance(codes, Tensor) else codes), ()
            lengths_N, own_N = None, np.full(len(codes_NGT), -1) if self.speakers else None
        voices = voices_for(len(codes_NGT), self.record, speakers, own_N=own_N, names=names)
        made = self.decoded_codes(codes_NGT, lengths_N, voices, decoder=decoder, seed=seed, levels=levels)
        return self.files.handed(made, self.record, (), voices)

    def convert(
        self,
        items: object,
        speakers: str | int | Sequence[str | int],
        *,
        labels: Labels = None,
        sample_rate_hz: int | None = None,
        decoder: str = "convolutional",
        levels: int | None = None,
        seed: int = 0,
    ) -> Any:
        """Recordings in another voice: their latents, decoded for another speaker. Arguments as of `reconstruct`.

        Raises:
            UsageError: the items do not fit, or there is no such voice, or there are not so many levels.
            RunError: the decoder is missing, unfinished or damaged.
        """
        arrays = self.files.arrays(items, self.record, sample_rate_hz)
        voices = voices_for(len(arrays), self.record, speakers)
        return self._passed(arrays, labels, voices, decoder, seed, levels)

    def reconstruct(
        self,
        items: object,
        *,
        labels: Labels = None,
        speakers: str | int | Sequence[str | int] | None = None,
        sample_rate_hz: int | None = None,
        decoder: str = "convolutional",
        levels: int | None = None,
        seed: int = 0,
    ) -> Any:
        """Items through encoder, latents and decoder.

        Args:
            items: images or recordings.
            labels: what a conditional VAE is given: one for all, or one for each.
            speakers: who speaks in recordings: one for all, or one for each.
            sample_rate_hz: rate of the recordings; None: the run's.
            decoder: which decoder.
            levels: as of `generate`.
            seed: of what an autoregressive decoder draws.

        Raises:
            UsageError: the items do not fit, or it is not known who speaks.
            RunError: the decoder is missing, unfinished or damaged.
        """
        arrays = self.files.arrays(items, self.record, sample_rate_hz)
        stated = stated_speakers(speakers, self.speakers, len(arrays))
        voices = own_voices(stated, self.record, (), flag="speakers")
        return self._passed(arrays, labels, voices, decoder, seed, levels)

    def _passed(
        self,
        arrays: Sequence[np.ndarray],
        labels: Labels,
        voices: Sequence[int],
        decoder: str,
        seed: int,
        levels: int | None,
    ) -> Any:
        given = labels_for(labels, len(arrays), self.record, classes=self.model.classes, name=self.name, flag="labels")
        split = self.files.split_of(arrays, given, voices)
        made = self.passed(split, decoder=decoder, seed=seed, levels=levels)
        return self.files.handed(made, self.record, (), voices)


def load_run(path: str | Path, *, model: str | None = None, device: str | torch.device = "cpu") -> TwoStage:
    """Load a trained model of a run folder, or of an exported one; its followers are looked for when they are needed.

    Args:
        path: the run folder.
        model: name of a model of the run; by default the main one, or the only one.
        device: where the networks live.

    Raises:
        RunError: the model is missing, unfinished or damaged.
    """
    run = Run.open(user_path(str(path)))
    return open_model(run, run.model_or_main(model or ""), torch.device(device))


def open_model(run: Run, name: str, device: torch.device) -> TwoStage:
    """`load_run` of an open run."""
    return TwoStage(run=run, name=name, stage1=run.stage1(name, device), device=device)
