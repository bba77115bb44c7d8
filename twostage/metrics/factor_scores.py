"""Disentanglement read from codes whose factors are known: MIG, SAP and DCI.

All are 1 for a code that is a copy of the factors, with one exception (`mutual_information_gap`), and no score changes
when code dimensions are permuted, scaled or shifted (DCI: but for ties in its trees). Constant dimensions carry nothing
and never help. Items are expected in random order: what is fitted is fitted on the first two thirds of the codes and
judged on the last third.

Where a score departs from its paper its function says so. F. Locatello et al., "Challenging Common Assumptions in the
Unsupervised Learning of Disentangled Representations", 2019, compare these scores on one footing; 20 bins and a split
into 10 000 and 5 000 codes are theirs. Numbers of different implementations compare only roughly.

Shape suffixes: N codes, Z code dimensions, F factors.
"""

from dataclasses import dataclass

import numpy as np

from twostage.errors import RunError, UsageError

BINS = 20
FOREST_TREES, FOREST_DEPTH = 10, 10


@dataclass(frozen=True)
class Dci:
    """Disentanglement, completeness and informativeness, each at most 1."""

    disentanglement: float
    completeness: float
    informativeness: float
    importance_ZF: np.ndarray
    """Share of each dimension in predicting each factor; columns add up to 1, or are 0 where nothing was used."""


def mutual_information_gap(codes_NZ: np.ndarray, factors_NF: np.ndarray, *, bins: int = BINS) -> float:
    """MIG: by how much the most informative dimension leads the second, as a share of the factor's entropy, on average.

    Departures from Chen et al.: codes are cut into `bins` bins of equal width between their extremes instead of
    integrating over posteriors (as Locatello et al.). A factor of V > bins values cannot be seen whole through the
    bins, so that its gap ends near log(bins)/log(V): 0.90 is the most on the five factors of `shapes` at 20 bins.

    Raises:
        UsageError: codes and factors do not fit together, or a factor does not vary.
        RunError: a code is not finite.
    """
    codes_NZ, factors_NF = _checked(codes_NZ, factors_NF)
    gaps = []
    for factor_N in factors_NF.T:
        value_N = np.unique(factor_N, return_inverse=True)[1]
        information_Z = np.array([_mutual_information(_binned(code_N, bins), value_N) for code_N in codes_NZ.T])
        gaps.append(_lead(information_Z) / _entropy(np.bincount(value_N)))
    return float(np.mean(gaps))


def separated_attribute_predictability(
    codes_NZ: np.ndarray, factors_NF: np.ndarray, *, categorical: tuple[int, ...]
) -> float:
    """SAP: by how much the best single dimension leads the second in predicting a factor, on average over factors.

    Ordered factors: squared correlation with the dimension over all codes. Categorical factors: V - 1 thresholds on the
    dimension, found greedily (a decision tree of V leaves, balanced classes) on the first two thirds of the codes;
    balanced accuracy on the last third.

    Departure from Kumar et al.: that accuracy is rescaled from 1/V..1 to 0..1, without which a perfect code would have
    less than 1.

    Raises:
        UsageError: codes and factors do not fit together, or a factor does not vary.
        RunError: a code is not finite.
    """
    from sklearn.tree import DecisionTreeClassifier

    codes_NZ, factors_NF = _checked(codes_NZ, factors_NF)
    train = _train_items(codes_NZ)
    gaps = []
    for column, factor_N in enumerate(factors_NF.T):
        if column in categorical:
            tree = DecisionTreeClassifier(
                max_leaf_nodes=len(np.unique(factor_N)), class_weight="balanced", random_state=0
            )
            score_Z = np.empty(codes_NZ.shape[1])
            for dimension, code_N1 in enumerate(codes_NZ.T[:, :, None]):
                tree.fit(code_N1[:train], factor_N[:train])
                score_Z[dimension] = _skill(tree.predict(code_N1[train:]), factor_N[train:])
        else:
            # Codes have mean 0 and variance 1, or are 0 throughout.
            score_Z = (codes_NZ.T @ _standardised(factor_N[:, None])[:, 0] / len(codes_NZ)) ** 2
        gaps.append(_lead(score_Z))
    return float(np.mean(gaps))


def dci_scores(codes_NZ: np.ndarray, factors_NF: np.ndarray, *, categorical: tuple[int, ...], seed: int = 0) -> Dci:
    """DCI from random forests: 10 trees of depth at most 10 per factor, every dimension offered to every split.

    Importance is the forest's share of impurity removed. Disentanglement: 1 - entropy of a dimension's importances over
    factors, base F, dimensions weighted by their importance. Completeness: 1 - entropy of a factor's importances over
    dimensions, base Z, mean over factors. Informativeness: forests are fitted on the first two thirds of the codes and
    judged on the last third.

    Departures from Eastwood and Williams: the depth is fixed instead of searched; informativeness is a score instead of
    an error: 1 - squared error / variance for ordered factors (negative for a prediction worse than the mean), balanced
    accuracy rescaled to 0..1 for categorical ones, mean over factors.

    Raises:
        UsageError: codes and factors do not fit together, or a factor does not vary.
        RunError: a code is not finite.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    codes_NZ, factors_NF = _checked(codes_NZ, factors_NF)
    train = _train_items(codes_NZ)
    settings = {"n_estimators": FOREST_TREES, "max_depth": FOREST_DEPTH, "max_features": 1.0, "random_state": seed}
    importances, scores = [], []
    for column, factor_N in enumerate(factors_NF.T):
        kind = RandomForestClassifier if column in categorical else RandomForestRegressor
        forest = kind(**settings).fit(codes_NZ[:train], factor_N[:train])
        predicted_N, truth_N = forest.predict(codes_NZ[train:]), factor_N[train:]
        if column in categorical:
            scores.append(_skill(predicted_N, truth_N))
        else:
            scores.append(1 - np.mean((predicted_N - truth_N) ** 2) / truth_N.var())
        importances.append(forest.feature_importances_)
    importance_ZF = np.stack(importances, axis=1)
    weight_Z = importance_ZF.sum(1) / max(importance_ZF.sum(), 1e-12)
    return Dci(
        disentanglement=float(sum(w * _concentration(row) for w, row in zip(weight_Z, importance_ZF, strict=True))),
        completeness=float(np.mean([_concentration(column) for column in importance_ZF.T])),
        informativeness=float(np.mean(scores)),
        importance_ZF=importance_ZF,
    )


def constant_dimensions(codes_NZ: np.ndarray) -> np.ndarray:
    """Bool [Z], whether all codes agree; their standard deviation does not tell, because it rounds."""
    return codes_NZ.min(0) == codes_NZ.max(0)


def refuse_infinite(codes_NZ: np.ndarray) -> None:
    """Stop with a RunError if a code is infinite or not a number."""
    if not np.isfinite(codes_NZ).all():
        bad = int((~np.isfinite(codes_NZ)).any(1).sum())
        raise RunError(f"expected finite codes, but {bad} of {len(codes_NZ)} are not: train the model again")


def _checked(codes_NZ: np.ndarray, factors_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of mean 0 and variance 1 (constant ones 0) and the factors."""
    codes_NZ, factors_NF = np.asarray(codes_NZ, np.float64), np.asarray(factors_NF)
    fits = codes_NZ.ndim == factors_NF.ndim == 2 and len(codes_NZ) == len(factors_NF) and codes_NZ.shape[1] > 0
    if not fits or factors_NF.dtype.kind not in "iu":
        raise UsageError(
            f"expected codes [N, Z] and whole numbers [N, F] as their factors, but {codes_NZ.shape} and "
            f"{factors_NF.dtype} {factors_NF.shape} came: give one row of each per image"
        )
    refuse_infinite(codes_NZ)
    train = _train_items(codes_NZ)
    for part_NF in (factors_NF[:train], factors_NF[train:]):
        if len(part_NF) == 0 or (part_NF == part_NF[:1]).all(0).any():
            raise UsageError(
                f"expected two values or more of every factor in both parts of the sample, but {len(factors_NF)} codes "
                "hold fewer: take more codes, and leave out factors that do not vary"
            )
    return _standardised(codes_NZ), factors_NF


def _train_items(codes_NZ: np.ndarray) -> int:
    return len(codes_NZ) * 2 // 3


def _standardised(values_NZ: np.ndarray) -> np.ndarray:
    constant_Z = constant_dimensions(values_NZ)
    scale_Z = np.where(constant_Z, 1.0, values_NZ.std(0))
    return np.where(constant_Z, 0.0, (values_NZ - values_NZ.mean(0)) / scale_Z)


def _binned(code_N: np.ndarray, bins: int) -> np.ndarray:
    """Number of each code's bin, 0..bins-1; the largest code falls into the last bin."""
    width = (code_N.max() - code_N.min()) or 1.0
    return np.minimum(((code_N - code_N.min()) / width * bins).astype(np.int64), bins - 1)


def _mutual_information(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Nats between two sequences of numbers from 0 up, H(first) + H(second) - H(both)."""
    both_N = first_N * (second_N.max() + 1) + second_N
    return sum(_entropy(np.bincount(part_N)) * sign for part_N, sign in ((first_N, 1), (second_N, 1), (both_N, -1)))


def _entropy(counts: np.ndarray) -> float:
    """Nats of the distribution with these counts."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _lead(score_Z: np.ndarray) -> float:
    """By how much the best dimension leads the second; one that stands alone leads a constant one, which scores 0."""
    *_, second, best = np.sort(score_Z if len(score_Z) > 1 else np.append(score_Z, 0.0))
    return float(best - second)


def _skill(predicted_N: np.ndarray, truth_N: np.ndarray) -> float:
    """Balanced accuracy, rescaled so that 0 is a blind guess and 1 is perfect."""
    values = np.unique(truth_N)
    recall = np.mean([(predicted_N[truth_N == value] == value).mean() for value in values])
    return float((recall * len(values) - 1) / (len(values) - 1))


def _concentration(importances: np.ndarray) -> float:
    """1 - normalised entropy: 1 if one entry has everything, 0 if all have the same or there is nothing."""
    if importances.sum() <= 0:
        return 0.0
    return 1.0 if len(importances) == 1 else 1 - _entropy(importances) / float(np.log(len(importances)))
