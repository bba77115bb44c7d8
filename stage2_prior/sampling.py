"""Ancestral sampling from any `Prior`, one cached step per code.

Each item has its own noise: one uniform number per code from a Philox counter keyed by (seed, item number), drawn up
front on the CPU and turned into a code by the inverse of the cumulative distribution. Which other items share the
batch, and on which device, changes nothing but rounding.

The distribution is sharpened in this order: temperature, then top-k, then top-p on what is left; equal logits are
ranked by code number.

Shape suffixes: B items, K codes, N symbols of one item, A attributes.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from stage2_prior.prior import Prior, check_condition
from twostage.errors import RunError, UsageError


@torch.no_grad()
def sample(
    prior: Prior,
    *,
    count: int,
    condition: Tensor | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    first_item: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw items `first_item` .. `first_item + count - 1` of the stream that `seed` names.

    Args:
        prior: where the codes come from; its weights must be on `device`.
        count: items to draw.
        condition: int64 [count, A] for a conditional prior, None otherwise.
        temperature: logits are divided by it; 0 takes the most probable code (and needs no noise).
        top_k: keep this many of the most probable codes; 0 keeps all.
        top_p: keep the smallest set of most probable codes whose probability reaches this; 1 keeps all.
        seed: 0 to 2^64 - 1.
        first_item: number of the first item, so that a long job can be cut into pieces without changing any item.
        batch_size: items drawn side by side; changes memory and speed, not the noise.
        device: where to compute.
        progress: called after each step with (codes drawn so far, codes in all).

    Returns:
        codes int64 [count, G, *grid] on `device`.

    Raises:
        UsageError: an argument is out of its range or the condition does not fit the prior.
        RunError: the prior's first logits are not finite.
    """
    _check_arguments(
        prior,
        count=count,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        first_item=first_item,
        batch_size=batch_size,
    )
    check_condition(None if condition is None else condition.cpu(), classes=prior.classes, batch_size=count)
    symbols = math.prod(prior.code_shape)
    batches = [torch.empty((0, *prior.code_shape), dtype=torch.int64, device=device)]
    for start in range(0, count, batch_size):
        items = min(batch_size, count - start)
        noise_BN = item_noise(seed=seed, first_item=first_item + start, count=items, symbols=symbols)
        condition_BA = None if condition is None else condition[start : start + items].to(device)
        codes = _sample_batch(
            prior,
            noise_NB=noise_BN.T.contiguous().to(device),
            condition_BA=condition_BA,
            draw_code=partial(draw, temperature=temperature, top_k=top_k, top_p=top_p),
            report=partial(_report, progress, before=start * symbols, total=count * symbols),
        )
        batches.append(codes)
    return torch.cat(batches)


def _sample_batch(
    prior: Prior,
    *,
    noise_NB: Tensor,
    condition_BA: Tensor | None,
    draw_code: Callable[[Tensor, Tensor], Tensor],
    report: Callable[[int], None],
) -> Tensor:
    """Codes [B, G, *grid] of one batch; `report` is told the number of codes drawn so far."""
    items = noise_NB.shape[1]
    state = prior.initial_state(items, condition_BA)
    drawn: list[Tensor] = []
    for noise_B in noise_NB:
        logits_BK, state = prior.step(state, drawn[-1] if drawn else None, condition_BA)
        # Looked at once per batch: a diverged prior shows at once, and a look per code would stall an accelerator.
        if not drawn and not _usable(logits_BK):
            raise RunError(
                "Expected finite logits from the prior, got NaN or infinity: its training diverged, take an earlier "
                "checkpoint or train again."
            )
        drawn.append(draw_code(logits_BK, noise_B))
        report(len(drawn) * items)
    # Symbols run over positions outside and codebooks inside; codes are stored the other way round.
    codes_BSG = torch.stack(drawn, dim=1).view(items, -1, prior.code_shape[0])
    return codes_BSG.transpose(1, 2).reshape(items, *prior.code_shape)


def _report(progress: Callable[[int, int], None] | None, drawn: int, *, before: int, total: int) -> None:
    if progress is not None:
        progress(before + drawn, total)


def item_noise(*, seed: int, first_item: int, count: int, symbols: int) -> Tensor:
    """Uniform numbers in [0, 1), float64 [count, symbols]; row i is a pure function of (seed, first_item + i)."""
    rows = [np.random.Philox(key=np.array([seed, first_item + item], np.uint64)) for item in range(count)]
    raw = np.stack([row.random_raw(symbols) for row in rows])
    # Raw words rather than `Generator.random`: numpy promises the stream of a bit generator, not that of its methods.
    return torch.from_numpy((raw >> np.uint64(11)) * 2.0**-53)


def draw(logits_BK: Tensor, noise_B: Tensor, *, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Codes int64 [B] by inverting the cumulative distribution at the uniform numbers float64 [B]."""
    if temperature == 0:
        return logits_BK.argmax(dim=1)
    logits_BK = logits_BK.double()
    weights_BK = torch.exp((logits_BK - logits_BK.amax(dim=1, keepdim=True)) / temperature)
    if top_k or top_p < 1:
        weights_BK = _keep_most_probable(weights_BK, top_k=top_k or weights_BK.shape[1], top_p=top_p)
    cumulative_BK = weights_BK.cumsum(dim=1)
    # noise < 1 keeps the target below the total after rounding, and `right` skips codes of no weight.
    target_B1 = noise_B[:, None] * cumulative_BK[:, -1:]
    return torch.searchsorted(cumulative_BK, target_B1, right=True)[:, 0]


def _usable(logits_BK: Tensor) -> bool:
    """Whether every row has a finite maximum; minus infinity alone rules a code out and is fine."""
    return bool(logits_BK.amax(dim=1).isfinite().all())


def _keep_most_probable(weights_BK: Tensor, *, top_k: int, top_p: float) -> Tensor:
    """Set to zero what lies outside the k most probable codes, and then outside the smallest set that reaches top_p."""
    ranked_BK, order_BK = weights_BK.sort(dim=1, descending=True, stable=True)
    ranked_BK[:, top_k:] = 0
    cumulative_BK = ranked_BK.cumsum(dim=1)
    before_BK = torch.nn.functional.pad(cumulative_BK[:, :-1], (1, 0))
    ranked_BK[before_BK >= top_p * cumulative_BK[:, -1:]] = 0
    return torch.zeros_like(weights_BK).scatter_(1, order_BK, ranked_BK)


def _check_arguments(
    prior: Prior,
    *,
    count: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    first_item: int,
    batch_size: int,
) -> None:
    limits = [
        ("count", count, count >= 0, "0 or more"),
        ("temperature", temperature, 0 <= temperature < math.inf, "0 (most probable code) or a positive number"),
        ("top_k", top_k, 0 <= top_k <= prior.codebook_size, f"0 (all codes) to {prior.codebook_size}"),
        ("top_p", top_p, 0 < top_p <= 1, "above 0 and at most 1 (all codes)"),
        ("seed", seed, 0 <= seed < 2**64, "0 to 2^64 - 1"),
        ("first_item", first_item, first_item >= 0 and first_item + count <= 2**64, "0 or more"),
        ("batch_size", batch_size, batch_size >= 1, "1 or more"),
    ]
    for name, value, fits, allowed in limits:
        if not fits:
            raise UsageError(f"Expected {name} {allowed}, got {value}: choose a value in that range.")
