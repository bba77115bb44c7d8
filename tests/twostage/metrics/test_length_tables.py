"""Prices of lengths, labels and speakers are those of codes that could be written."""

import math

import numpy as np
import pytest

from twostage.errors import DataError
from twostage.metrics.length_tables import LabelTable, LengthTable, remainder_bits


def test_lengths_cost_their_smoothed_frequency() -> None:
    table = LengthTable.of(np.array([3, 3, 1, 3]), max_length=4)
    expected = [-math.log2(count / 8) for count in (2, 1, 4, 1)]
    np.testing.assert_allclose(table.bits(np.array([1, 2, 3, 4])), expected)
    np.testing.assert_allclose(table.bits(np.array([3, 3])), [1.0, 1.0])


def test_all_lengths_together_have_probability_one() -> None:
    table = LengthTable.of(np.random.default_rng(0).integers(1, 40, 500), max_length=90)
    assert np.exp2(-table.bits(np.arange(1, 91))).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("length", [0, 5])
def test_a_length_without_price_is_refused(length: int) -> None:
    table = LengthTable.of(np.array([2]), max_length=4)
    with pytest.raises(DataError, match=f"codes per recording from 1 to 4, but {length} to {length} came"):
        table.bits(np.array([length]))
    with pytest.raises(DataError, match="from 1 to 4"):
        LengthTable.of(np.array([length]), max_length=4)


def test_length_and_remainder_say_the_number_of_samples() -> None:
    """Summed over all numbers of samples, what they cost together is one message of probability one."""
    stride = 8
    samples = np.arange(1, 5 * stride + 1)
    table = LengthTable.of(np.array([1, 2, 2, 4]), max_length=5)
    bits = table.bits(-(-samples // stride)) + remainder_bits(stride)
    assert np.exp2(-bits).sum() == pytest.approx(1.0, abs=1e-12)


def test_labels_and_speakers_cost_their_joint_smoothed_frequency() -> None:
    labels, speakers = np.array([0, 0, 2, 2, 2]), np.array([1, 1, 0, 0, 1])
    table = LabelTable.of(labels, speakers, classes=3, speakers=2)
    counts = np.array([[1, 3], [1, 1], [3, 2]])
    np.testing.assert_allclose(table.bits_YP, -np.log2(counts / 11))
    np.testing.assert_allclose(table.bits(np.array([0, 2, 1]), np.array([1, 0, 1])), -np.log2(np.array([3, 3, 1]) / 11))


def test_what_there_is_one_of_costs_nothing() -> None:
    none = np.zeros(7, np.int64)
    assert LabelTable.of(none, none, classes=1, speakers=1).bits(none, none).tolist() == [0.0] * 7
    speakers = np.array([0, 1, 1])
    table = LabelTable.of(none[:3], speakers, classes=1, speakers=2)
    np.testing.assert_allclose(table.bits(none[:2], np.array([0, 1])), [-math.log2(2 / 5), -math.log2(3 / 5)])


def test_what_is_not_paid_for_is_not_looked_at() -> None:
    labels, speakers = np.array([5, 0, 7]), np.array([0, 1, 1])
    alone = LabelTable.of(labels, speakers, classes=0, speakers=2)
    assert np.array_equal(alone.numbers(labels, speakers), speakers)
    np.testing.assert_allclose(alone.bits(labels, speakers), -np.log2(np.array([2, 3, 3]) / 5))
    assert LabelTable.of(labels, speakers, classes=0, speakers=0).bits(labels, speakers).tolist() == [0.0] * 3
    both = LabelTable.of(labels, speakers, classes=8, speakers=2)
    assert both.numbers(labels, speakers).tolist() == [10, 1, 15]


def test_labels_of_another_set_are_refused() -> None:
    one = np.array([1])
    table = LabelTable.of(one, one, classes=2, speakers=3)
    with pytest.raises(DataError, match="labels from 0 to 1, but 2 to 2 came"):
        table.bits(np.array([2]), one)
    with pytest.raises(DataError, match="speakers from 0 to 2, but -1 to -1 came"):
        table.bits(one, np.array([-1]))
    with pytest.raises(DataError, match="speakers from 0 to 0"):
        LabelTable.of(one, one, classes=2, speakers=1)
