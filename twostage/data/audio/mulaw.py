"""mu-law: 16-bit samples to 256 levels that are dense where sound is quiet, and back.

With x = sample/32768 in [-1, 1) and mu = 255 (ITU-T G.711; van den Oord et al. 2016, WaveNet, arXiv 1609.03499,
section 2.2):

    F(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu)          level = floor((F(x) + 1)/2 * mu + 1/2), 0..255
    y = 2 level/mu - 1                                  sample = round(32768 sign(y) ((1 + mu)^|y| - 1)/mu)

which is the continuous curve. G.711 itself approximates it by eight straight pieces per sign over 14 bits, so these are
not the bytes of a telephone. The highest sample, 32768, is brought to 32767. There is no level for silence: 0 becomes
level 128 and comes back as 3.

Both ways are tables, computed once in float64: apart from 0, which is computed exactly, no sample sits nearer than 1e-5
to the border of two levels, so they are the same on every machine. Bits per sample of these levels say nothing about
bits per sample of 16 bits.
"""

from functools import cache

import numpy as np

MU = 255
LEVELS = 256


@cache
def level_table() -> np.ndarray:
    """Level of every sample, uint8 [65536], at `sample + 32768`; not to be written to."""
    x = np.arange(-32768, 32768) / 32768
    companded = np.sign(x) * np.log1p(MU * np.abs(x)) / np.log1p(MU)
    table = np.floor((companded + 1) / 2 * MU + 0.5).astype(np.uint8)
    table.setflags(write=False)
    return table


@cache
def sample_table() -> np.ndarray:
    """Sample of every level, int16 [256]; not to be written to."""
    y = 2 * np.arange(LEVELS) / MU - 1
    expanded = np.sign(y) * np.expm1(np.abs(y) * np.log1p(MU)) / MU
    table = np.clip(np.rint(32768 * expanded), -32768, 32767).astype(np.int16)
    table.setflags(write=False)
    return table


def to_levels(samples: np.ndarray) -> np.ndarray:
    """mu-law levels, uint8, of int16 samples; any shape."""
    return level_table()[samples.astype(np.int32) + 32768]


def to_samples(levels: np.ndarray) -> np.ndarray:
    """int16 samples of mu-law levels 0..255 of any integer type; any shape."""
    return sample_table()[levels]
