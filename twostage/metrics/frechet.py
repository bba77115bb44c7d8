"""Fréchet distance between two sets of feature vectors, each taken for a Gaussian.

d = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1^1/2 S2 S1^1/2)^1/2), the squared 2-Wasserstein distance of the Gaussians
(Dowson and Landau 1982; the measure of Heusel et al. 2017, arXiv 1706.08500, eq. 6, there with Inception features).

Departure: the last trace is computed as the sum of the singular values of S1^1/2 S2^1/2, which is the same number. The
usual way, a Schur square root of S1 S2, squares the condition and turns complex where a covariance is singular; here
every step is a symmetric eigenproblem or an SVD, in fp64.

A covariance of n items has rank n - 1 at most, so with no more items than features it is singular. The distance is
still defined, but it then says more about n than about the items: `sample_quality` asks for more items than features.

The distance of two finite sets is on average above that of what they were drawn from, and no unbiased estimate of it
exists (Bińkowski et al. 2018, arXiv 1801.01401; Chong and Forsyth 2020, arXiv 1911.07023). Means of n and m items of
one distribution are tr(S) (1/n + 1/m) apart on average, and the square root, being concave, makes the overlap of
sampled covariances too small. The bias goes as 1/n and depends on what is compared, so a distance is to be read beside
one of real items in the same numbers, and never beside a distance of other numbers.

Shapes: B items of a batch, F features.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from twostage.errors import UsageError


@dataclass(frozen=True)
class FeatureGaussian:
    """Mean and covariance of a set of feature vectors."""

    mean_F: np.ndarray
    """float64."""
    covariance_FF: np.ndarray
    """float64, symmetric, divided by items - 1."""


def fit_gaussian(batches_BF: Iterable[np.ndarray]) -> FeatureGaussian:
    """Mean and covariance of features that come in batches; how they are cut changes rounding only.

    Batches are merged by their means and scatters (Chan, Golub and LeVeque 1983), so that features far from zero lose
    no digits, as they would in a sum of squares.

    Raises:
        UsageError: fewer than two items came.
    """
    items, mean_F, scatter_FF = 0, np.zeros(0), np.zeros((0, 0))
    for batch_BF in batches_BF:
        features_BF = batch_BF.astype(np.float64)
        if len(features_BF) == 0:
            continue
        batch_mean_F = features_BF.mean(0)
        centred_BF = features_BF - batch_mean_F
        if items == 0:
            items, mean_F, scatter_FF = len(features_BF), batch_mean_F, centred_BF.T @ centred_BF
            continue
        total, shift_F = items + len(features_BF), batch_mean_F - mean_F
        weight = items * len(features_BF) / total
        scatter_FF = scatter_FF + centred_BF.T @ centred_BF + weight * np.outer(shift_F, shift_F)
        mean_F = mean_F + shift_F * (len(features_BF) / total)
        items = total
    if items < 2:
        raise UsageError(f"a covariance needs at least 2 items, but {items} came: score more samples")
    covariance_FF = (scatter_FF + scatter_FF.T) / (2 * (items - 1))
    return FeatureGaussian(mean_F=mean_F, covariance_FF=covariance_FF)


def frechet_distance(first: FeatureGaussian, second: FeatureGaussian) -> float:
    """Squared 2-Wasserstein distance of two Gaussians, in squared units of the features; never below 0.

    Exactly symmetric: both orders give the same float.

    Raises:
        UsageError: the numbers of features differ.
    """
    if first.mean_F.shape != second.mean_F.shape:
        raise UsageError(
            f"expected features of one kind, but {len(first.mean_F)} and {len(second.mean_F)} of them came: "
            "use one classifier for both sets"
        )
    # All of each pair of terms is added in an order that does not depend on which set came first.
    shift = float(((first.mean_F - second.mean_F) ** 2).sum())
    traces = float(np.trace(first.covariance_FF)) + float(np.trace(second.covariance_FF))
    one, two = _root(first.covariance_FF), _root(second.covariance_FF)
    overlap = float(np.linalg.svd(one @ two, compute_uv=False).sum() + np.linalg.svd(two @ one, compute_uv=False).sum())
    return max(0.0, shift + traces - overlap)


def _root(covariance_FF: np.ndarray) -> np.ndarray:
    """Symmetric square root; eigenvalues that rounding made negative count as zero."""
    values_F, vectors_FF = np.linalg.eigh(covariance_FF)
    return (vectors_FF * np.sqrt(np.clip(values_F, 0.0, None))) @ vectors_FF.T
