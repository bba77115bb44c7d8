"""mu-law tables: every level survives the way back, order is kept, and the curve is the published one."""

import math

import numpy as np

from twostage.data.audio.mulaw import LEVELS, level_table, sample_table, to_levels, to_samples

SAMPLES = np.arange(-32768, 32768).astype(np.int16)


def test_every_level_comes_back_as_itself() -> None:
    levels = np.arange(LEVELS)
    np.testing.assert_array_equal(to_levels(to_samples(levels)), levels)


def test_both_ways_keep_the_order_and_use_every_level() -> None:
    levels = to_levels(SAMPLES).astype(int)
    assert set(np.diff(levels).tolist()) == {0, 1}
    assert (levels[0], levels[-1]) == (0, 255)
    assert (np.diff(to_samples(np.arange(LEVELS)).astype(int)) > 0).all()


def test_the_curve_is_the_published_one() -> None:
    """A slow reference with another library, for samples of every size and both signs."""
    for sample in (-32768, -32767, -20000, -1000, -257, -31, -3, -1, 0, 1, 2, 3, 64, 999, 12345, 32767):
        x = sample / 32768
        companded = math.copysign(math.log(1 + 255 * abs(x)) / math.log(256), x)
        assert to_levels(np.array(sample, dtype=np.int16)) == math.floor((companded + 1) / 2 * 255 + 0.5)
    assert to_samples(np.array([0, 127, 128, 255])).tolist() == [-32768, -3, 3, 32767]


def test_torchaudio_makes_the_same_levels() -> None:
    import torch
    from torchaudio.functional import mu_law_encoding

    theirs = mu_law_encoding(torch.from_numpy(SAMPLES / 32768), 256).numpy()
    np.testing.assert_array_equal(to_levels(SAMPLES), theirs)


def test_the_error_is_at_most_half_a_step() -> None:
    error = np.abs(to_samples(to_levels(SAMPLES)).astype(int) - SAMPLES)
    assert error[np.abs(SAMPLES.astype(int)) < 30].max() <= 3
    # Half of one of 127.5 steps through ln(256) is 2.2 % of |x| + 1/255.
    assert (error <= 0.022 * (np.abs(SAMPLES.astype(int)) + 32768 / 255) + 1).all()


def test_tables_and_shapes() -> None:
    assert (level_table().dtype, sample_table().dtype) == (np.uint8, np.int16)
    assert not level_table().flags.writeable
    assert not sample_table().flags.writeable
    assert to_levels(np.zeros((2, 3), dtype=np.int16)).tolist() == [[128] * 3] * 2


def test_no_sample_is_near_a_border_where_machines_could_differ() -> None:
    x = np.delete(SAMPLES / 32768, 32768)  # 0 is exact
    place = (np.sign(x) * np.log1p(255 * np.abs(x)) / np.log1p(255) + 1) / 2 * 255 + 0.5
    assert np.abs(place - np.rint(place)).min() > 1e-5
