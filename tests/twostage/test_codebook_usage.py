"""Codebook usage over a whole data set, against figures worked by hand."""

import math

import numpy as np
import pytest

from twostage.codebook_usage import codebook_usage
from twostage.errors import DataError


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
