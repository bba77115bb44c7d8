"""From codes or latents to sound: which decoder speaks, in whose voice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import AudioVQVAE, WaveNetDecoder
from twostage.errors import UsageError
from twostage.printable import printable, show
from twostage.progress import Progress

from ..media.wav import to_int16
from ..runs.class_numbers import class_number, trained_numbers
from ..runs.loading import Loaded
from ..runs.run import Run

BATCH = 64
"""Recordings decoded side by side."""


@dataclass(frozen=True)
class Voice:
    """A codebook with the decoder that is to be heard."""

    model: AudioVQVAE
    decoder: WaveNetDecoder | None
    """None: the model's own convolutional one."""
    device: torch.device

    @property
    def name(self) -> str:
        return "convolutional decoder" if self.decoder is None else "WaveNet decoder"

    @torch.no_grad()
    def speak(self, codes_NGT: Tensor, samples_B: Tensor, speaker_B: Tensor | None, *, seed: int) -> list[np.ndarray]:
        """int16 samples of every item, `samples_B` of each; codes of an item reach that far.

        Item i of a WaveNet decoder depends on (seed, i), whatever is decoded beside it.
        """
        sounds: list[np.ndarray] = []
        total = sum(int(samples_B[start : start + BATCH].max()) for start in range(0, len(samples_B), BATCH))
        with Progress(self.name, total=total, unit="sample") as progress:
            for start in range(0, len(samples_B), BATCH):
                rows, before = slice(start, start + BATCH), progress.done
                lengths_B, voice_B = samples_B[rows], None if speaker_B is None else speaker_B[rows]
                longest = int(lengths_B.max())
                codes_BGT = codes_NGT[rows, :, : -(-longest // self.model.stride)]

                def report(done: int, _: int, before: int = before) -> None:
                    progress.advance(before + done - progress.done)

                sound_BS = self._decode(codes_BGT, lengths_B, voice_B, seed=seed, first_item=start, report=report)
                report(longest, longest)
                sounds += [sound_S[: int(length)] for sound_S, length in zip(sound_BS, lengths_B, strict=True)]
        return sounds

    def _decode(
        self,
        codes_BGT: Tensor,
        lengths_B: Tensor,
        speaker_B: Tensor | None,
        *,
        seed: int,
        first_item: int,
        report: Callable[[int, int], None],
    ) -> np.ndarray:
        """int16 `[B, S]` or longer."""
        if self.decoder is None:
            wave_BS = self.model.decode(codes_BGT, self.model.code_lengths(lengths_B), speaker_B)
            return to_int16(wave_BS.cpu().numpy())
        sound_BS = self.decoder.sample(
            self.model.condition_vectors(codes_BGT),
            lengths_B,
            speaker_B,
            seed=seed,
            first_item=first_item,
            progress=report,
        )
        return sound_BS.cpu().numpy()


def voice_of(run: Run, name: str, stage1: Loaded[AudioVQVAE], choice: str, device: torch.device) -> Voice:
    """The decoder asked for, `convolutional` or `wavenet`.

    Raises:
        RunError: the WaveNet decoder is asked for and not trained, or belongs to another codebook.
    """
    decoder = run.decoder(name, stage1, device).model if choice == "wavenet" else None
    return Voice(model=stage1.model, decoder=decoder, device=device)


def trained_voices(record: Mapping[str, Any]) -> list[int]:
    """Numbers of the speakers that a model has heard in training (`class_numbers`)."""
    return trained_numbers(record, "speakers")


def voice_number(wanted: str, record: Mapping[str, Any], *, flag: str = "--speaker") -> int:
    """Number of the speaker named, whose voice a decoder is to have; `flag` is what errors call the argument.

    Raises:
        UsageError: there is no such speaker, or no training recording of one.
    """
    speakers = tuple(record["speakers"])
    if not speakers:
        raise UsageError(f"{flag} {wanted} was asked for, but the recordings of this run have no speakers")
    number, heard = class_number(wanted, speakers, flag=flag), trained_voices(record)
    if number not in heard:
        raise UsageError(
            f"{flag} must be one of the training recordings, {show([speakers[voice] for voice in heard])}, but "
            f"{speakers[number]} is held out and the model has never heard that voice"
        )
    return number


def own_voices(
    speakers_N: np.ndarray | None,
    record: Mapping[str, Any],
    names: Sequence[str],
    *,
    flag: str = "--speaker",
    otherwise: str = "",
) -> list[int]:
    """The speakers of recordings as voices of a decoder: each must be known, and heard in training.

    Args:
        speakers_N: their numbers, -1 where that is not known; None where the data have no speakers.
        record: of the model.
        names: of the recordings, for errors; empty where they have none.
        flag: what errors call the argument that would say it.
        otherwise: what else would say who speaks, the end of the sentence.

    Raises:
        UsageError: nothing says who speaks in one of them, or the model has never heard that voice.
    """
    speakers, heard = list(record["speakers"]), trained_voices(record)
    if speakers_N is None:
        return []
    for item, speaker in enumerate(speakers_N.tolist()):
        if speaker in heard:
            continue
        name = printable(names[item]) if names else f"recording {item}"
        fault = (
            f"nothing says who speaks in {name}"
            if speaker < 0
            else f"{name} is spoken by {speakers[speaker]}, who is held out and whose voice the model has never heard"
        )
        instead = otherwise if speaker < 0 else ""
        raise UsageError(f"{fault}: give {flag}, one of {show([speakers[voice] for voice in heard])}{instead}")
    return [int(speaker) for speaker in speakers_N]


def voices_in_turn(count: int, record: Mapping[str, Any]) -> list[int]:
    """Speaker of every item, those heard in training one after the other; empty where there are none."""
    heard = trained_voices(record)
    return [heard[item % len(heard)] for item in range(count)] if heard else []
