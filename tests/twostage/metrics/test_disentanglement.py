"""Scores of disentanglement: perfect, useless and rotated codes, invariances, and plain loops that must agree."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from twostage.data.images.shapes import FACTOR_SIZES
from twostage.errors import RunError, UsageError
from twostage.metrics.disentanglement import (
    Disentanglement,
    SampleSizes,
    beta_vae_score,
    disentanglement,
    factor_vae_score,
)
from twostage.metrics.factor_scores import dci_scores, mutual_information_gap, separated_attribute_predictability

SIZES = SampleSizes(
    codes=6000,
    group=32,
    beta_vae_train=200,
    beta_vae_test=200,
    factor_vae_train=250,
    factor_vae_test=250,
    factor_vae_variance=2000,
)
SMALL = (3, 4, 5)
TOP = np.array(FACTOR_SIZES) - 1
# The orthogonal discrete cosine transform: no dimension keeps the better part of one factor.
ROTATION = np.sqrt(0.4) * np.cos(np.pi / 5 * np.outer(np.arange(5) + 0.5, np.arange(5)))
ROTATION[:, 0] = np.sqrt(0.2)


def perfect(factors_NF: np.ndarray) -> np.ndarray:
    """Factors as codes of mean 0 and variance 1."""
    return (factors_NF - TOP / 2) / np.sqrt(TOP * (TOP + 2) / 12)


def rotated(factors_NF: np.ndarray) -> np.ndarray:
    return perfect(factors_NF) @ ROTATION


def useless() -> Callable[[np.ndarray], np.ndarray]:
    random = np.random.default_rng(4)
    return lambda factors_NF: random.standard_normal((len(factors_NF), 6))


def scores(encode: Callable[[np.ndarray], np.ndarray]) -> Disentanglement:
    return disentanglement(encode, FACTOR_SIZES, categorical=(0,), sizes=SIZES, seed=1)


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    """Codes [1500, 4] that mix three small factors unevenly with noise, and the factors."""
    random = np.random.default_rng(5)
    factors = random.integers(0, SMALL, (1500, 3))
    mixing = np.array([[1.0, 0.4, 0.0, 0.2], [0.0, 0.7, 0.5, 0.1], [0.3, 0.0, 0.9, 0.0]])
    return factors @ mixing + 0.4 * random.standard_normal((1500, 4)), factors


class TestKnownCodes:
    def test_a_perfect_code_is_near_one_in_all_scores(self) -> None:
        found = scores(perfect)
        assert found.mig == pytest.approx(found.mig_of_factors, abs=1e-9)
        assert found.mig > 0.88  # 20 bins cannot show 40 and 32 values: see the next test
        assert found.sap > 0.99
        assert min(found.dci.disentanglement, found.dci.completeness, found.dci.informativeness) > 0.99
        assert found.beta_vae > 0.99
        assert found.factor_vae > 0.99

    def test_bins_as_fine_as_the_factors_show_a_perfect_code_whole(self) -> None:
        factors = np.random.default_rng(0).integers(0, FACTOR_SIZES, (15_000, 5))
        assert mutual_information_gap(perfect(factors), factors, bins=40) > 0.98

    def test_coarser_bins_show_a_perfect_code_as_far_as_they_can(self) -> None:
        factor = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 30))[:, None]
        assert mutual_information_gap(factor, factor, bins=20) == pytest.approx(math.log(20) / math.log(40), abs=1e-9)
        assert mutual_information_gap(factor, factor, bins=40) == pytest.approx(1.0, abs=1e-9)

    def test_a_code_that_says_nothing_is_near_chance(self) -> None:
        found = scores(useless())
        assert found.mig < 0.01
        assert found.sap < 0.02
        assert found.dci.disentanglement < 0.05
        assert found.dci.completeness < 0.05
        assert found.dci.informativeness < 0.05
        assert found.chance == 0.2
        # Four standard errors of 250 and 200 guesses at 0.2.
        assert found.factor_vae < 0.2 + 4 * math.sqrt(0.16 / 250)
        assert found.beta_vae < 0.2 + 4 * math.sqrt(0.16 / 200)

    def test_a_rotated_code_is_low_on_the_gaps_although_it_tells_all(self) -> None:
        found = scores(rotated)
        assert found.mig < 0.06
        assert found.sap < 0.12
        assert found.dci.disentanglement < 0.25
        assert found.dci.completeness < 0.25
        assert found.dci.informativeness > 0.9
        assert 0.25 < found.factor_vae < 0.6
        assert 0.25 < found.beta_vae < 0.7

    def test_doubled_dimensions_are_disentangled_but_not_complete(self, sample: tuple[np.ndarray, np.ndarray]) -> None:
        factors = sample[1]
        noise = 0.05 * np.random.default_rng(6).standard_normal((len(factors), 6))
        codes = np.concatenate([factors, factors], axis=1) + noise
        assert mutual_information_gap(codes, factors) < 0.02
        assert separated_attribute_predictability(codes, factors, categorical=(0,)) < 0.02
        found = dci_scores(codes, factors, categorical=(0,))
        assert found.disentanglement > 0.95
        assert found.completeness < 0.85

    def test_one_dimension_for_two_factors_is_complete_but_not_disentangled(self) -> None:
        factors = np.random.default_rng(7).integers(0, 4, (1500, 2))
        codes = np.stack([factors[:, 0] * 4.0 + factors[:, 1], np.zeros(1500)], axis=1)
        found = dci_scores(codes, factors, categorical=())
        assert found.completeness == pytest.approx(1.0)
        assert found.disentanglement == pytest.approx(0.0, abs=1e-9)
        assert found.informativeness > 0.99


class TestInvariance:
    def test_order_scale_shift_and_constant_dimensions_change_nothing(
        self, sample: tuple[np.ndarray, np.ndarray]
    ) -> None:
        codes, factors = sample
        moved = codes[:, [2, 0, 3, 1]] * [1e3, -1e-3, 7.0, 0.5] + [5.0, 1.0, 0.0, -40.0]
        padded = np.insert(moved, 1, 3.7, axis=1)
        for score in (mutual_information_gap, lambda c, f: separated_attribute_predictability(c, f, categorical=(0,))):
            assert score(padded, factors) == pytest.approx(score(codes, factors), abs=1e-3)
        plain, same = dci_scores(codes, factors, categorical=(0,)), dci_scores(moved, factors, categorical=(0,))
        assert same.disentanglement == pytest.approx(plain.disentanglement, abs=0.02)
        assert same.completeness == pytest.approx(plain.completeness, abs=0.02)
        assert same.informativeness == pytest.approx(plain.informativeness, abs=0.02)

    def test_scores_that_ask_the_encoder_do_not_see_scale_order_or_constants_either(self) -> None:
        def moved(factors_NF: np.ndarray) -> np.ndarray:
            return np.insert(rotated(factors_NF)[:, ::-1] * [1e3, -1e-3, 7.0, 0.5, 1.0] + 2.0, 0, 3.7, axis=1)

        for score in (beta_vae_score, factor_vae_score):
            plain = score(rotated, FACTOR_SIZES, sizes=SIZES, seed=2)
            assert score(moved, FACTOR_SIZES, sizes=SIZES, seed=2) == pytest.approx(plain, abs=0.011)

    def test_a_code_of_constants_only_scores_nothing_and_breaks_nothing(self) -> None:
        found = scores(lambda factors_NF: np.full((len(factors_NF), 3), 3.7, np.float32))
        assert (found.mig, found.sap, found.dci.disentanglement, found.dci.completeness) == (0, 0, 0, 0)
        assert found.dci.informativeness == pytest.approx(0, abs=0.01)
        assert found.factor_vae < 0.31
        assert found.beta_vae < 0.31

    def test_one_dimension_is_compared_with_none(self) -> None:
        factors = np.random.default_rng(8).integers(0, 4, (900, 1))
        assert mutual_information_gap(factors, factors) == pytest.approx(1.0)
        assert separated_attribute_predictability(factors, factors, categorical=(0,)) == pytest.approx(1.0)
        assert dci_scores(factors, factors, categorical=(0,)).completeness == pytest.approx(1.0)

    def test_the_seed_fixes_the_scores(self) -> None:
        few = replace(SIZES, codes=300, group=4)
        first, again, other = (
            [score(rotated, FACTOR_SIZES, sizes=few, seed=seed) for score in (beta_vae_score, factor_vae_score)]
            for seed in (1, 1, 2)
        )
        assert first == again != other


def gap(scores_Z: list[float]) -> float:
    *_, second, best = sorted(scores_Z)
    return best - second


def best_split(points: list[tuple[float, int]], weight: dict[int, float]) -> tuple[float, float]:
    """Largest weighted impurity removed by one threshold, and the threshold."""

    def impurity(part: list[tuple[float, int]]) -> float:
        mass = [sum(weight[v] for _, v in part if v == value) for value in weight]
        total = sum(mass)
        return total - sum(m * m for m in mass) / total if total else 0.0

    points = sorted(points)
    whole, best = impurity(points), (0.0, math.nan)
    for at in range(1, len(points)):
        if points[at - 1][0] < points[at][0]:
            gain = whole - impurity(points[:at]) - impurity(points[at:])
            best = max(best, (gain, (points[at - 1][0] + points[at][0]) / 2))
    return best


def threshold_skill(code: list[float], factor: list[int], train: int) -> float:
    """Balanced accuracy of V - 1 greedy thresholds, rescaled, with loops."""
    values = sorted(set(factor))
    counts = Counter(factor[:train])
    weight = {value: 1 / counts[value] for value in values}
    leaves = [list(zip(code[:train], factor[:train], strict=True))]
    thresholds: list[float] = []
    while len(leaves) < len(values):
        (_, threshold), number = max((best_split(leaf, weight), number) for number, leaf in enumerate(leaves))
        points = leaves.pop(number)
        thresholds.append(threshold)
        leaves += [[p for p in points if p[0] <= threshold], [p for p in points if p[0] > threshold]]
    leaves.sort()
    named = [max(values, key=lambda v: sum(weight[v] for _, value in leaf if value == v)) for leaf in leaves]
    recalls = []
    for value in values:
        members = [c for c, v in zip(code[train:], factor[train:], strict=True) if v == value]
        hits = [named[sum(c > threshold for threshold in thresholds)] == value for c in members]
        recalls.append(sum(hits) / len(hits))
    return (sum(recalls) / len(values) - 1 / len(values)) / (1 - 1 / len(values))


class TestPlainComputation:
    def test_mutual_information_gap(self, sample: tuple[np.ndarray, np.ndarray]) -> None:
        codes, factors = sample
        gaps = []
        for factor in factors.T.tolist():
            entropy = -sum(n / 1500 * math.log(n / 1500) for n in Counter(factor).values())
            informations = []
            for code in codes.T:
                edges = np.linspace(code.min(), code.max(), 21)[1:-1].tolist()
                bins = [sum(value >= edge for edge in edges) for value in code.tolist()]
                ones, others = Counter(bins), Counter(factor)
                informations.append(
                    sum(
                        n / 1500 * math.log(n * 1500 / (ones[b] * others[v]))
                        for (b, v), n in Counter(zip(bins, factor, strict=True)).items()
                    )
                )
            gaps.append(gap(informations) / entropy)
        assert mutual_information_gap(codes, factors) == pytest.approx(sum(gaps) / 3, abs=1e-3)
        assert 0.1 < sum(gaps) / 3 < 0.9

    def test_separated_attribute_predictability(self, sample: tuple[np.ndarray, np.ndarray]) -> None:
        codes, factors = sample[0][:240], sample[1][:240]
        gaps = [gap([threshold_skill(code.tolist(), factors[:, 0].tolist(), 160) for code in codes.T])]
        gaps += [gap([np.corrcoef(code, factor)[0, 1] ** 2 for code in codes.T]) for factor in factors.T[1:]]
        found = separated_attribute_predictability(codes, factors, categorical=(0,))
        assert found == pytest.approx(sum(gaps) / 3, abs=1e-3)
        assert 0.1 < gaps[0] < 0.9

    def test_factor_vae_votes(self) -> None:
        """Points and codes are taken down while the score is computed; loops then vote again."""
        seen: list[np.ndarray] = []

        def encode(factors_NF: np.ndarray) -> np.ndarray:
            seen.append(factors_NF)
            return rotated(factors_NF)

        sizes = replace(SIZES, factor_vae_variance=4096, group=16)  # 4096: the first block holds these and no others
        found = factor_vae_score(encode, FACTOR_SIZES, sizes=sizes, seed=3)
        codes = rotated(seen[0])
        spread = [sum((c - codes[:, z].mean()) ** 2 for c in codes[:, z]) / 4095 for z in range(5)]
        votes = []
        for point in np.concatenate(seen[1:]).reshape(-1, 16, 5):
            held = [f for f in range(5) if len(set(point[:, f].tolist())) == 1]
            assert len(held) == 1
            group = rotated(point)
            ratios = [sum((c - group[:, z].mean()) ** 2 for c in group[:, z]) / 15 / spread[z] for z in range(5)]
            votes.append((ratios.index(min(ratios)), held[0]))
        train, test = votes[:250], votes[250:]
        majority = {}
        for z in range(5):
            counts = [sum(vote == (z, f) for vote in train) for f in range(5)]
            majority[z] = counts.index(max(counts))
        assert found == pytest.approx(sum(majority[z] == f for z, f in test) / 250, abs=1e-3)
        assert 0.3 < found < 0.99

    def test_pairs_of_the_beta_vae_score_share_one_factor_and_no_other(self) -> None:
        seen: list[np.ndarray] = []

        def encode(factors_NF: np.ndarray) -> np.ndarray:
            seen.append(factors_NF)
            return perfect(factors_NF)

        beta_vae_score(encode, FACTOR_SIZES, sizes=SIZES, seed=4)
        first, second = np.concatenate(seen).reshape(2, 400, 32, 5)
        share_PF = (first == second).mean(1)
        assert ((share_PF == 1).sum(1) == 1).all()
        rest = np.where(share_PF == 1, np.nan, share_PF)
        # Unshared factors agree by chance only, and members of a group do not share the value itself.
        assert np.nanmean(rest, axis=0) == pytest.approx(1 / np.array(FACTOR_SIZES), abs=0.02)
        assert (np.ptp(first, axis=1) > 0).all()

    def test_importance_makes_the_entropies_of_dci(self, sample: tuple[np.ndarray, np.ndarray]) -> None:
        found = dci_scores(*sample, categorical=(0,))
        table = found.importance_ZF.tolist()
        total = sum(map(sum, table))
        disentangled = sum(
            sum(row) / total * (1 + sum(r / sum(row) * math.log(r / sum(row), 3) for r in row)) for row in table
        )
        columns = list(zip(*table, strict=True))
        complete = sum(1 + sum(r / sum(c) * math.log(r / sum(c), 4) for r in c) for c in columns) / 3
        assert [sum(column) for column in columns] == pytest.approx([1, 1, 1])
        assert found.disentanglement == pytest.approx(disentangled, abs=1e-3)
        assert found.completeness == pytest.approx(complete, abs=1e-3)


class TestBadInput:
    def test_codes_that_are_not_finite_are_a_failed_run(self) -> None:
        with pytest.raises(RunError, match="finite"):
            scores(lambda factors_NF: np.full((len(factors_NF), 2), np.nan))

    @pytest.mark.parametrize(
        ("codes", "factors", "word"),
        [
            (np.zeros((9, 2)), np.zeros((8, 2), int), "one row"),
            (np.zeros((9, 2)), np.zeros((9, 2)), "whole numbers"),
            (np.zeros((9, 0)), np.zeros((9, 2), int), "one row"),
            (np.zeros((9, 2)), np.zeros((9, 2), int), "do not vary"),
            (np.zeros((2, 2)), np.array([[0, 0], [1, 1]]), "more codes"),
        ],
    )
    def test_samples_that_show_nothing_are_refused(self, codes: np.ndarray, factors: np.ndarray, word: str) -> None:
        with pytest.raises(UsageError, match=word):
            mutual_information_gap(codes, factors)
