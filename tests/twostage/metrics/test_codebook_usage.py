"""Codebook usage over a whole data set, against figures worked by hand."""

import math

import numpy as np
import pytest

from twostage.errors import DataError
from twostage.metrics.codebook_usage import CodebookUsage, CollapseWatch, codebook_usage, collapse_of


def test_figures_by_hand() -> None:
    """Codebook 0 holds 0 four times, 1 twice, 3 twice: 1.5 bits; codebook 1 holds only code 2."""
    codes_NGT = np.array([[[0, 0, 1, 3], [2, 2, 2, 2]], [[0, 0, 3, 1], [2, 2, 2, 2]]], dtype=np.uint8)
    usage = codebook_usage(codes_NGT, codebook_size=5)
    first, second = usage.codebooks
    assert first.counts_K.tolist() == [4, 2, 0, 2, 0]
    assert (first.used, first.dead, second.used, second.dead) == (3, 2, 1, 4)
    assert first.entropy_bits == pytest.approx(1.5, abs=1e-12)
    assert first.perplexity == pytest.approx(2**1.5)
    assert (second.entropy_bits, second.perplexity) == (0.0, 1.0)
    assert (usage.used, usage.dead, usage.codebook_size) == (4, 6, 5)
    assert usage.entropy_bits == pytest.approx(0.75)
    assert usage.perplexity == pytest.approx(2**0.75)
    assert usage.entropy_bits_per_item == pytest.approx(4 * 1.5)


def test_of_sequences_nothing_behind_an_end_counts() -> None:
    codes_NGT = np.array([[[0, 0, 1], [2, 2, 2]], [[3, 4, 4], [1, 4, 4]]])
    usage = codebook_usage(codes_NGT, codebook_size=5, lengths_N=np.array([3, 1]))
    assert [single.counts_K.tolist() for single in usage.codebooks] == [[2, 1, 0, 1, 0], [0, 1, 3, 0, 0]]
    codes_NGT[1, :, 1:] = 0
    assert codebook_usage(codes_NGT, codebook_size=5, lengths_N=np.array([3, 1])).perplexity == usage.perplexity
    assert usage.entropy_bits_per_item == pytest.approx(sum(single.entropy_bits for single in usage.codebooks))


def test_perplexity_is_exp_of_the_entropy_and_k_when_uniform() -> None:
    usage = codebook_usage(np.arange(64).reshape(4, 1, 4, 4) % 16, codebook_size=16)
    assert usage.perplexity == pytest.approx(16)
    assert usage.perplexity == pytest.approx(math.exp(usage.entropy_bits * math.log(2)))
    assert usage.entropy_bits_per_item == pytest.approx(16 * 4)


def test_neither_order_nor_grouping_of_items_matters() -> None:
    """A mean over batches would depend on both."""
    codes_NGHW = np.random.default_rng(0).zipf(1.5, (60, 2, 3, 3)).clip(max=40) - 1
    usage = codebook_usage(codes_NGHW, codebook_size=40)
    regrouped = codebook_usage(codes_NGHW[::-1].reshape(6, 10, 2, 9).transpose(0, 2, 1, 3), codebook_size=40)
    assert regrouped.perplexity == pytest.approx(usage.perplexity, rel=1e-12)
    assert regrouped.used == usage.used


def test_no_items() -> None:
    usage = codebook_usage(np.zeros((0, 1, 4, 4), np.int64), codebook_size=7)
    assert (usage.used, usage.dead, usage.entropy_bits, usage.perplexity) == (0, 7, 0.0, 1.0)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.array([[[0, 8]]]), "0 to 7"),
        (np.array([[[-1, 3]]]), "0 to 7"),
        (np.array([[[0.0, 1.0]]]), "integer codes"),
        (np.array([0, 1]), "integer codes"),
    ],
)
def test_refuses_what_is_no_code_of_this_codebook(codes: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        codebook_usage(codes, codebook_size=8)


def used(counts: list[int], codebook_size: int) -> CodebookUsage:
    """Usage of one codebook by codes that occur so often."""
    codes = np.repeat(np.arange(len(counts)), counts)
    return codebook_usage(codes[None, None, :], codebook_size=codebook_size)


@pytest.mark.parametrize(
    ("counts", "codebook_size", "collapsed"),
    [
        ([10] * 7, 16, True),  # fewer than half of the codes
        ([10] * 8, 16, False),
        ([10_000] + [1] * 63, 64, True),  # all are used, but one takes nearly everything
        ([100] + [20] * 63, 64, False),
        ([5], 2, True),
        ([5, 1], 2, False),
        ([1] * 20, 512, False),  # twenty tokens cannot use more than twenty codes
        ([11] + [1] * 9, 512, False),
        ([15] + [1] * 5, 512, True),
    ],
)
def test_collapse_is_told_from_a_small_data_set(counts: list[int], codebook_size: int, collapsed: bool) -> None:
    assert (collapse_of(used(counts, codebook_size)) is not None) == collapsed


def test_a_collapse_is_said_in_numbers() -> None:
    assert collapse_of(used([8, 8], 16)) == "2 of 16 codes are used, with a perplexity of 2.0"
    assert collapse_of(codebook_usage(np.zeros((0, 1, 4), np.int64), codebook_size=8)) is None


def test_one_collapsed_codebook_does_not_hide_behind_another() -> None:
    """Perplexities 64 and 1: their geometric mean, 8, is more than a tenth, and 65 of 128 codes more than half."""
    full, empty = np.arange(64), np.zeros(64, np.int64)
    assert collapse_of(codebook_usage(np.stack([full, full])[None], codebook_size=64)) is None
    collapse = collapse_of(codebook_usage(np.stack([full, empty])[None], codebook_size=64))
    assert collapse is not None
    assert collapse == "1 of 64 codes are used in codebook 1, the worst of 1, with a perplexity of 1.0"


def test_the_watch_excuses_the_start_and_warns_once() -> None:
    good, bad = used([10] * 16, 16), used([10] * 2, 16)
    watch = CollapseWatch(excused=2)
    assert [watch.look(usage) for usage in (bad, bad, good)] == [None, None, None]
    warning = watch.look(bad)
    assert warning is not None
    assert warning.startswith("warning: the codebook has collapsed: 2 of 16 codes are used")
    assert "\n" not in warning
    assert [watch.look(usage) for usage in (bad, good, bad)] == [None, None, None]


def test_levels_of_a_hierarchy_are_counted_by_themselves() -> None:
    grids = ((1, 2), (2, 4))
    top = np.array([[[0, 1]], [[0, 1]]])
    bottom = np.tile(np.arange(4), 4).reshape(2, 1, 8)
    usage = codebook_usage(np.concatenate([top, bottom], 2), codebook_size=5, grids=grids)
    assert [single.name for single in usage.codebooks] == ["level 1 (1x2)", "level 2 (2x4)"]
    assert [level.used for level in usage.levels] == [2, 4]
    assert (usage.used, usage.dead, usage.size) == (6, 4, 10)
    assert [level.perplexity for level in usage.levels] == pytest.approx([2, 4])
    assert usage.perplexity == pytest.approx(8**0.5)
    assert usage.entropy_bits_per_item == pytest.approx(2 * 1 + 8 * 2)
    two = codebook_usage(np.zeros((3, 2, 10), int), codebook_size=5, grids=grids)
    assert two.codebooks[3].name == "level 2 (2x4), codebook 1"
    assert two.entropy_bits_per_item == 0


def test_a_collapsed_level_is_named() -> None:
    full, empty = np.tile(np.arange(8), (4, 1)), np.zeros((4, 2), int)
    collapse = collapse_of(
        codebook_usage(np.concatenate([empty, full], 1)[:, None], codebook_size=8, grids=((1, 2), (2, 4)))
    )
    assert collapse is not None
    assert "in level 1 (1x2), the worst of 1" in collapse
