"""How loud a recording is, block by block, and whether it is one at all.

Shapes: S samples of a block, C channels.
"""

import math

import numpy as np

from twostage.data.audio.part import Unreadable

LOUDEST = 2.0
"""Largest root mean square that is read, in full scales. A square wave at the limits of 16 bits has 1: clipping leaves
nothing of what is far louder. Integers that were stored as floats without a division have thousands."""
_STEPS = 32768.0


class Level:
    """Counts what `add` is given; `refuse` judges it all."""

    def __init__(self) -> None:
        self.count = 0
        """Samples per channel."""
        self._channels = self._non_finite = self._beyond = 0
        self._low, self._high = math.inf, -math.inf
        self._power = self._power_of_channels = 0.0

    def add(self, wave_SC: np.ndarray) -> np.ndarray:
        """The mean of the channels of a block, float64 `[S]`; zeros where a sample of the block is no number."""
        self.count += len(wave_SC)
        self._channels = wave_SC.shape[1]
        wrong = int(wave_SC.size - np.count_nonzero(np.isfinite(wave_SC)))
        if wrong:
            self._non_finite += wrong
            return np.zeros(len(wave_SC))
        with np.errstate(over="ignore"):  # floats go to 1e308
            wave_S: np.ndarray = wave_SC.mean(axis=1) if self._channels > 1 else wave_SC[:, 0]
            self._power += float(np.vdot(wave_S, wave_S))
            self._power_of_channels += float(np.vdot(wave_SC, wave_SC)) / self._channels
        self._low, self._high = min(self._low, float(wave_S.min())), max(self._high, float(wave_S.max()))
        self._beyond += int(np.count_nonzero(np.abs(wave_S) > 1.0))
        return wave_S

    @property
    def power_left(self) -> float:
        """Power of the mean of the channels as a share of their mean power: 1 where they are alike, 0 where they
        cancel."""
        return self._power / self._power_of_channels if self._power_of_channels else 1.0

    def refuse(self) -> None:
        """Judge the whole.

        Raises:
            Unreadable: no samples, some that are no numbers, silence, or a level above `LOUDEST`.
        """
        if self._non_finite:
            raise Unreadable(f"has {self._non_finite} samples that are NaN or infinite")
        if not self.count:
            raise Unreadable("has no samples")
        # inf where squares overflow, which is loud enough.
        if math.sqrt(self._power / self.count) > LOUDEST:
            peak = max(-self._low, self._high)
            raise Unreadable(
                f"is far too loud ({self._beyond} of {self.count} samples beyond full scale, up to {peak:.3g} times: "
                "clipping would leave none of the sound)"
            )
        level = round(min(max(self._low * _STEPS, -_STEPS), _STEPS - 1))
        # A single sample is too little to tell silence from sound.
        if self.count > 1 and (self._low == self._high or level == round(min(self._high * _STEPS, _STEPS - 1))):
            raise Unreadable(self._silence(level))

    def _silence(self, level: int) -> str:
        power = self._power / self.count
        if self._power_of_channels / self.count - power > 1 / _STEPS**2:
            return f"is silent once its {self._channels} channels are averaged: they are of opposite phase and cancel"
        return f"is silent (every sample is {level})"
