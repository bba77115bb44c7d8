"""Disentanglement: does each dimension of a code stand for one factor of variation? Five scores of an encoder.

MIG, SAP and DCI are read from the codes of one sample of known factors (factor_scores.py). The two scores here ask the
encoder for codes of factors they choose: groups that agree in one factor and in nothing else.

- beta-VAE score: I. Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational
  Framework", 2017.
- FactorVAE score: H. Kim, A. Mnih, "Disentangling by Factorising", 2018.

Both are 1 for a code that is a copy of the factors and 1/F for a code that says nothing, and both stay the same when
code dimensions are permuted, scaled or shifted. Constant dimensions carry nothing and never help.

Shape suffixes: N codes, Z code dimensions, F factors, P points, L codes of a point.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from twostage.metrics.factor_scores import (
    Dci,
    constant_dimensions,
    dci_scores,
    mutual_information_gap,
    refuse_infinite,
    separated_attribute_predictability,
)

Encoder = Callable[[np.ndarray], np.ndarray]
"""Factors int64 [N, F] to codes float [N, Z], deterministic: the means of a posterior, not samples of it."""

_ENCODED_AT_ONCE = 4096


@dataclass(frozen=True)
class SampleSizes:
    """How many codes the scores are read from; the default asks the encoder for 191 400 codes."""

    codes: int = 15_000
    """N of MIG, SAP and DCI, of which the last third tests what was fitted on the rest."""
    group: int = 64
    """L: pairs of a beta-VAE point, codes of a FactorVAE point."""
    beta_vae_train: int = 500
    beta_vae_test: int = 300
    factor_vae_train: int = 600
    factor_vae_test: int = 400
    factor_vae_variance: int = 10_000
    """Codes from which FactorVAE takes the variance of each dimension."""


@dataclass(frozen=True)
class Disentanglement:
    """All scores of an encoder and the sizes they were computed with."""

    mig: float
    mig_of_factors: float
    """MIG of the factors taken as their own code: the most that `BINS` bins can show."""
    sap: float
    dci: Dci
    beta_vae: float
    factor_vae: float
    chance: float
    """Accuracy of a blind guess in the beta-VAE and FactorVAE scores, 1/F."""
    sizes: SampleSizes
    seed: int


def disentanglement(
    encode: Encoder,
    factor_sizes: tuple[int, ...],
    *,
    categorical: tuple[int, ...],
    sizes: SampleSizes | None = None,
    seed: int = 0,
) -> Disentanglement:
    """All scores of an encoder on independent, uniform factors.

    Args:
        encode: codes of the images with given factors.
        factor_sizes: number of values of every factor.
        categorical: columns of factors whose values have no order; the others are read as numbers.
        sizes: sample sizes; unless given, the defaults of `SampleSizes`.
        seed: of the factors drawn and of the forests of DCI.

    Raises:
        UsageError: a factor has one value only, or the sample is too small to show two of each.
        RunError: the encoder gives codes that are not finite.
    """
    sizes = sizes or SampleSizes()
    random = np.random.default_rng([seed, 0])
    factors_NF = random.integers(0, factor_sizes, (sizes.codes, len(factor_sizes)))
    codes_NZ = _encoded(encode, factors_NF)
    return Disentanglement(
        mig=mutual_information_gap(codes_NZ, factors_NF),
        mig_of_factors=mutual_information_gap(factors_NF.astype(np.float64), factors_NF),
        sap=separated_attribute_predictability(codes_NZ, factors_NF, categorical=categorical),
        dci=dci_scores(codes_NZ, factors_NF, categorical=categorical, seed=seed),
        beta_vae=beta_vae_score(encode, factor_sizes, sizes=sizes, seed=seed),
        factor_vae=factor_vae_score(encode, factor_sizes, sizes=sizes, seed=seed),
        chance=1 / len(factor_sizes),
        sizes=sizes,
        seed=seed,
    )


def beta_vae_score(
    encode: Encoder, factor_sizes: tuple[int, ...], *, sizes: SampleSizes | None = None, seed: int = 0
) -> float:
    """Accuracy with which a linear classifier names the factor that two codes share; chance is 1/F.

    A point has a random factor, L pairs whose two members agree in it (all else drawn anew), and the mean over the
    pairs of the absolute difference of their codes. Logistic regression reads the factor from it.

    Departures from Higgins et al.: differences are standardised, so that the scale of a dimension does not decide how
    much the classifier's L2 penalty holds it back; fewer points.

    Raises:
        RunError: the encoder gives codes that are not finite.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sizes = sizes or SampleSizes()
    random = np.random.default_rng([seed, 1])
    points, train = sizes.beta_vae_train + sizes.beta_vae_test, sizes.beta_vae_train
    factor_P = random.integers(0, len(factor_sizes), points)
    first_PLF, second_PLF = random.integers(0, factor_sizes, (2, points, sizes.group, len(factor_sizes)))
    first_PLZ = _encoded(encode, first_PLF)
    second_PLZ = _encoded(encode, _with_factor_of(first_PLF, second_PLF, factor_P))
    constant_Z = constant_dimensions(first_PLZ.reshape(-1, first_PLZ.shape[-1]))
    difference_PZ = np.where(constant_Z, 0.0, abs(first_PLZ - second_PLZ).mean(1))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(difference_PZ[:train], factor_P[:train])
    return float(classifier.score(difference_PZ[train:], factor_P[train:]))


def factor_vae_score(
    encode: Encoder, factor_sizes: tuple[int, ...], *, sizes: SampleSizes | None = None, seed: int = 0
) -> float:
    """Accuracy with which the dimension that varies least names the factor that is held; chance is 1/F.

    A point has a random factor, L codes that all agree in it (all else drawn anew), and a vote: the dimension with the
    smallest variance among them relative to its variance over all images. The classifier gives each dimension the
    factor that most training votes found it with; the accuracy is that on the test votes.

    Departures from Kim and Mnih: only constant dimensions are left out of the vote, not those near the prior, because
    that needs a posterior; votes of the test are not those of the fit.

    Raises:
        RunError: the encoder gives codes that are not finite.
    """
    sizes = sizes or SampleSizes()
    random = np.random.default_rng([seed, 2])
    whole_NZ = _encoded(encode, random.integers(0, factor_sizes, (sizes.factor_vae_variance, len(factor_sizes))))
    variance_Z = np.where(constant_dimensions(whole_NZ), 0.0, whole_NZ.var(0, ddof=1))
    points, train = sizes.factor_vae_train + sizes.factor_vae_test, sizes.factor_vae_train
    factor_P = random.integers(0, len(factor_sizes), points)
    drawn_PLF = random.integers(0, factor_sizes, (points, sizes.group, len(factor_sizes)))
    local_PZ = _encoded(encode, _with_factor_of(drawn_PLF[:, :1], drawn_PLF, factor_P)).var(1, ddof=1)
    # An infinite ratio never wins; where all dimensions are constant the first has all votes, and the score is chance.
    ratio_PZ = np.divide(local_PZ, variance_Z, out=np.full_like(local_PZ, np.inf), where=variance_Z > 0)
    vote_P = ratio_PZ.argmin(1)
    votes_ZF = np.zeros((len(variance_Z), len(factor_sizes)), np.int64)
    np.add.at(votes_ZF, (vote_P[:train], factor_P[:train]), 1)
    return float(np.mean(votes_ZF.argmax(1)[vote_P[train:]] == factor_P[train:]))


def _with_factor_of(held_PLF: np.ndarray, drawn_PLF: np.ndarray, factor_P: np.ndarray) -> np.ndarray:
    """The drawn factors, but each point's own factor as in those held."""
    return np.where(np.arange(drawn_PLF.shape[-1]) == factor_P[:, None, None], held_PLF, drawn_PLF)


def _encoded(encode: Encoder, factors_xF: np.ndarray) -> np.ndarray:
    """Codes float64 [..., Z] of factors [..., F], encoded a block at a time."""
    flat_NF = factors_xF.reshape(-1, factors_xF.shape[-1])
    blocks = [encode(flat_NF[at : at + _ENCODED_AT_ONCE]) for at in range(0, len(flat_NF), _ENCODED_AT_ONCE)]
    codes_NZ = np.concatenate(blocks).astype(np.float64)
    refuse_infinite(codes_NZ)
    return codes_NZ.reshape(*factors_xF.shape[:-1], codes_NZ.shape[1])
