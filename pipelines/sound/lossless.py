"""What FLAC makes of recordings: the lossless codec that bits per sample of 16 bits stand beside.

libFLAC as soundfile brings it, at its strongest level (8). A file carries 86 bytes of headers and begins to predict
anew, which on recordings of half a second is 0.15 bits/sample; all recordings end to end in one stream show the codec
without that. A header holds length and rate; labels and speakers are in the files' names and cost nothing.
"""

import io

import numpy as np

from twostage.audio.libraries import load_soundfile

_STRONGEST = 1.0  # of soundfile's scale from 0 to 1, libFLAC's level 8


def flac_bits(samples_S: np.ndarray, sample_rate_hz: int) -> int:
    """Size in bits of the FLAC file that holds int16 samples `[S]`, headers included.

    Raises:
        RunError: soundfile cannot be loaded.
        ValueError: no int16 `[S]` with S at least 1.
    """
    if samples_S.dtype != np.int16 or samples_S.ndim != 1 or not len(samples_S):
        raise ValueError(f"expected int16 samples [S], but {samples_S.dtype} {samples_S.shape} came")
    buffer = io.BytesIO()
    load_soundfile().write(
        buffer, samples_S, int(sample_rate_hz), format="FLAC", subtype="PCM_16", compression_level=_STRONGEST
    )
    return 8 * buffer.getbuffer().nbytes
