"""What the latents of a Gaussian model hold, and whether its posterior has collapsed onto the prior.

- Rate: KL(q(z|x) || p(z)) of every latent, closed form, mean over items; p(z) is the standard normal.
- Active units: latents whose posterior mean varies over the items by more than 0.01 (Burda et al. 2016, arXiv
  1509.00519, section 5.1).
- I(x; z) of an item and its latents: the rate less KL(q(z) || p(z)), with the aggregated posterior q(z) the mean of
  q(z|x) over items (Hoffman and Johnson 2016, "ELBO surgery"). log q(z) of one draw per item is a full log-sum-exp over
  the items that are used, never a minibatch's. With its own item among them the estimate is too low, and at most the
  log of their number; without its own item it is too high (Poole et al. 2019, arXiv 1905.06922, both bounds for a known
  q(z|x)). Both are given; the rate is another upper bound, and the smaller of the two stands.
- Entanglement: correlations of the posterior means, and the total correlation of a Gaussian with the covariance of z,
  that is of the means plus the mean posterior variances. It sees second moments only. Of finite samples it is too high,
  by about Z (Z - 1) / (4 N) nats for Z independent latents that are wide beside their posteriors: for many latents far
  more than any entanglement. The same number with every latent's items in an order of its own says how much is chance.

Of recordings, which have different numbers of positions, a latent is a channel and an item of these numbers a position:
they are over the real positions of all recordings (`posteriors`).

Shapes: N items, Z latents of an item (a grid is flattened), M items of the estimate of I(x; z).
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from twostage.errors import UsageError
from twostage.metrics.statistics import evenly
from twostage.noise import item_noise

from .posteriors import Posteriors

ACTIVE_VARIANCE = 0.01
"""Variance of a latent's posterior mean over the items above which it counts as active."""
COLLAPSED_BITS = 1.0
"""A posterior that tells less than this about an item, in all latents together, has collapsed; of few items, which show
at most the log of their number, less than half of that. Of a recording its positions are added up."""
ENTANGLED_LATENTS = 1024
"""Most latents, those of the highest rate, between which correlations are measured; memory grows with the square of
their number and time with its third power."""
INFORMATION_ITEMS = 5000
"""Most items, spread over the split, in the estimate of I(x; z); time and memory grow with their square."""
_BLOCK = 512


@dataclass(frozen=True)
class MutualInformation:
    """Bounds on I(x; z) in nats, in expectation over the draws and the items."""

    items: int
    """M; the lower bound cannot exceed log M."""
    lower_nats: float
    """Each item's own posterior is part of q(z)."""
    upper_nats: float
    """The smaller of the rate and the estimate with each item's own posterior left out of q(z)."""
    standard_error_nats: float
    """Of the lower bound, over the items."""

    @property
    def saturated(self) -> bool:
        """Whether the lower bound is within 5 % of log M, where it says no more than "at least"."""
        return self.lower_nats > 0.95 * math.log(self.items)


@dataclass(frozen=True)
class PosteriorDiagnosis:
    """Everything this module measures on one model and split."""

    items: int
    positions: float | None
    """Of a recording, in the mean, where an item is a position and a latent a channel."""
    latent_shape: tuple[int, ...]
    kl_nats_Z: np.ndarray
    """Mean over items."""
    mean_variance_Z: np.ndarray
    """Variance of the posterior means over items."""
    information: MutualInformation
    entangled: np.ndarray
    """Numbers of the latents that the three below are about, `ENTANGLED_LATENTS` at most, in their own order."""
    correlation_ZZ: np.ndarray
    """Of the posterior means of these; 0 beside the diagonal for latents whose mean is constant."""
    total_correlation_nats: float
    """Of a Gaussian with the covariance of these in z; not below 0."""
    chance_correlation_nats: float
    """The same with every latent's items shuffled on their own: what independent latents show on so many items."""

    @property
    def active_Z(self) -> np.ndarray:
        """Bool, `mean_variance_Z > ACTIVE_VARIANCE`."""
        return self.mean_variance_Z > ACTIVE_VARIANCE

    @property
    def active_units(self) -> int:
        return int(self.active_Z.sum())

    @property
    def rate_nats(self) -> float:
        """Mean KL of an item, all latents together."""
        return float(self.kl_nats_Z.sum())

    @property
    def marginal_kl_nats(self) -> float:
        """KL(q(z) || p(z)), the part of the rate that says nothing about the item: too high as I(x; z) is too low."""
        return self.rate_nats - self.information.lower_nats

    @property
    def strongest_correlation(self) -> float:
        """Largest absolute correlation between two active latents; 0 for fewer than two."""
        active = self.active_Z[self.entangled]
        between = abs(self.correlation_ZZ[np.ix_(active, active)])
        np.fill_diagonal(between, 0.0)
        return float(between.max(initial=0.0))

    @property
    def verdict(self) -> Literal["collapsed", "partly collapsed", "in use"]:
        """`collapsed`: no active unit, or I(x; z) below `COLLAPSED_BITS`; `partly`: fewer than half of the units."""
        enough_nats = min(COLLAPSED_BITS * math.log(2), 0.5 * math.log(self.information.items)) / (self.positions or 1)
        if self.active_units == 0 or self.information.lower_nats < enough_nats:
            return "collapsed"
        return "partly collapsed" if 2 * self.active_units < len(self.kl_nats_Z) else "in use"

    @property
    def sentence(self) -> str:
        """The verdict and the numbers behind it, in bits."""
        low, high = (nats / math.log(2) for nats in (self.information.lower_nats, self.information.upper_nats))
        items = "items" if self.positions is None else "positions"
        bound = f" (the most that {self.information.items} {items} can show)" if self.information.saturated else ""
        advice = {
            "collapsed": " The decoder does without the latents: lower beta, anneal it, or weaken the decoder.",
            "partly collapsed": " The other latents repeat the prior: fewer would do.",
            "in use": "",
        }[self.verdict]
        rate = self.rate_nats / math.log(2)
        which, costs, of = "", f"{rate:.2f} bits an item", ""
        if self.positions is not None:
            which = f" (a latent is a channel, over the {self.items:,} positions of all recordings)"
            costs, of = f"{rate:.2f} bits a position and {rate * self.positions:.2f} a recording", " of a position"
        return (
            f"The posterior is {self.verdict}: {self.active_units} of {len(self.kl_nats_Z)} latents are active{which}, "
            f"the rate is {costs}, and I(x; z){of} is at least {low:.2f}{bound} and at most {high:.2f} bits.{advice}"
        )

    @property
    def entanglement(self) -> str:
        """How far the latents depend on one another, in a sentence."""
        every = len(self.entangled) == len(self.kl_nats_Z)
        which = "all latents" if every else f"the {len(self.entangled):,} latents of the highest rate"
        return (
            f"Between the means of active latents the strongest correlation is {self.strongest_correlation:.2f}; the "
            f"total correlation of {which} is {self.total_correlation_nats / math.log(2):.2f} bits, where as many "
            f"independent ones show {self.chance_correlation_nats / math.log(2):.2f} by chance."
        )

    def record(self) -> dict[str, Any]:
        """Numbers for a JSON file; the matrix of correlations is left out."""
        return {
            "items": self.items,
            "positions_per_recording": self.positions,
            "latent_shape": list(self.latent_shape),
            "kl_nats": self.kl_nats_Z.tolist(),
            "mean_variance": self.mean_variance_Z.tolist(),
            "active_units": self.active_units,
            "rate_nats": self.rate_nats,
            "information_items": self.information.items,
            "information_lower_nats": self.information.lower_nats,
            "information_upper_nats": self.information.upper_nats,
            "information_standard_error_nats": self.information.standard_error_nats,
            "marginal_kl_nats": self.marginal_kl_nats,
            "strongest_correlation": self.strongest_correlation,
            "total_correlation_nats": self.total_correlation_nats,
            "chance_correlation_nats": self.chance_correlation_nats,
            "verdict": self.verdict,
        }


def diagnose_posteriors(
    posteriors: Posteriors, *, seed: int = 0, information_items: int = INFORMATION_ITEMS
) -> PosteriorDiagnosis:
    """All numbers of this module.

    Args:
        posteriors: of the items of one split, two or more.
        seed: of the draws from them; that of an item depends on (seed, its place among those used) only. And of the
            shuffles behind `chance_correlation_nats`.
        information_items: M, at most.

    Raises:
        UsageError: there are fewer than two items.
    """
    if len(posteriors) < 2:
        raise UsageError(f"expected posteriors of two items or more, got {len(posteriors)}: take a larger split")
    kl_nats_Z = posteriors.kl_nats().mean(0)
    entangled = np.sort(np.argsort(-kl_nats_Z, kind="stable")[:ENTANGLED_LATENTS])
    some = replace(
        posteriors,
        mean_NZ=posteriors.mean_NZ[:, entangled],
        log_variance_NZ=posteriors.log_variance_NZ[:, entangled],
        latent_shape=(len(entangled),),
    )
    shuffled = replace(some, mean_NZ=np.random.default_rng(seed).permuted(some.mean_NZ, axis=0))
    return PosteriorDiagnosis(
        items=len(posteriors),
        positions=posteriors.positions,
        latent_shape=posteriors.latent_shape,
        kl_nats_Z=kl_nats_Z,
        mean_variance_Z=posteriors.mean_NZ.var(0),
        information=mutual_information(posteriors, items=information_items, seed=seed),
        entangled=entangled,
        correlation_ZZ=_correlation(some.mean_NZ),
        total_correlation_nats=total_correlation_nats(some),
        chance_correlation_nats=total_correlation_nats(shuffled),
    )


def mutual_information(posteriors: Posteriors, *, items: int, seed: int) -> MutualInformation:
    """Bounds on I(x; z) from one draw for each of at most `items` items, spread evenly over all."""
    rows_M = evenly(len(posteriors), items)
    mean_MZ, log_variance_MZ = posteriors.mean_NZ[rows_M], posteriors.log_variance_NZ[rows_M]
    count, latents = mean_MZ.shape
    noise_MZ = item_noise(seed, 0, count, (latents,)).double().numpy()
    z_MZ = mean_MZ + np.exp(0.5 * log_variance_MZ) * noise_MZ
    own_M = -0.5 * (noise_MZ**2 + log_variance_MZ + math.log(2 * math.pi)).sum(1)
    # (z - mean)^2 / variance multiplied out, so that matrix products do the work. The log variance of `VAE` stays above
    # -15, so that the terms that cancel stay below 1e9 and float64 keeps 6 decimals of their difference.
    precision_MZ = np.exp(-log_variance_MZ)
    constant_M = (mean_MZ**2 * precision_MZ + log_variance_MZ + math.log(2 * math.pi)).sum(1)
    with_own_M, without_own_M = np.empty(count), np.empty(count)
    for start in range(0, count, _BLOCK):
        block = slice(start, min(start + _BLOCK, count))
        z_BZ = z_MZ[block]
        log_q_BM = -0.5 * (z_BZ**2 @ precision_MZ.T - 2 * z_BZ @ (mean_MZ * precision_MZ).T + constant_M)
        own = (np.arange(len(z_BZ)), np.arange(block.start, block.stop))
        log_q_BM[own] = own_M[block]
        with_own_M[block] = _log_sum(log_q_BM) - math.log(count)
        log_q_BM[own] = -np.inf
        without_own_M[block] = _log_sum(log_q_BM) - math.log(count - 1)
    lower_M = own_M - with_own_M
    rate = float(posteriors.kl_nats().sum(1).mean())
    upper = max(0.0, min(rate, float((own_M - without_own_M).mean())))
    return MutualInformation(
        items=count,
        # The noise of the draws can carry it over the rate, which has none, or below zero.
        lower_nats=min(max(0.0, float(lower_M.mean())), upper),
        upper_nats=upper,
        standard_error_nats=float(lower_M.std(ddof=1) / math.sqrt(count)),
    )


def total_correlation_nats(posteriors: Posteriors) -> float:
    """KL between a Gaussian with the covariance of z and the product of its marginals; see the module on its bias."""
    covariance_ZZ = np.atleast_2d(np.cov(posteriors.mean_NZ, rowvar=False, ddof=0))
    covariance_ZZ = covariance_ZZ + np.diag(np.exp(posteriors.log_variance_NZ).mean(0))
    log_determinant = float(np.linalg.slogdet(covariance_ZZ)[1])
    return max(0.0, 0.5 * (float(np.log(np.diag(covariance_ZZ)).sum()) - log_determinant))


def _log_sum(log_q_BM: np.ndarray) -> np.ndarray:
    """log sum exp of every row."""
    highest_B1 = log_q_BM.max(1, keepdims=True)
    return np.log(np.exp(log_q_BM - highest_B1).sum(1)) + highest_B1[:, 0]


def _correlation(values_NZ: np.ndarray) -> np.ndarray:
    """Correlations `[Z, Z]`, 1 on the diagonal; a constant column has none with any other."""
    constant_Z = values_NZ.min(0) == values_NZ.max(0)
    scale_Z = np.where(constant_Z, 1.0, values_NZ.std(0))
    standard_NZ = np.where(constant_Z, 0.0, (values_NZ - values_NZ.mean(0)) / scale_Z)
    correlation_ZZ = standard_NZ.T @ standard_NZ / len(values_NZ)
    np.fill_diagonal(correlation_ZZ, 1.0)
    return np.clip(correlation_ZZ, -1.0, 1.0)
