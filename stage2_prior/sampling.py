"""Ancestral sampling from any `Prior`, one cached step per code.

Each item has its own noise: one uniform number per code from a Philox counter keyed by (seed, item number), drawn up
front on the CPU and turned into a code by the inverse of the cumulative distribution. Which other items share the
batch, and on which device, changes nothing but rounding.

Completion: the codes of the first rows (or frames) may be given. They are kept as they are and only walked through, so
the others follow p(rest | given); an item completed from its own first rows, under its own seed, is that item again.

Shape suffixes: B items, K codes, N symbols of one item, A attributes.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from stage2_prior.prior import Prior, check_condition
from twostage.categorical import draw
from twostage.errors import RunError, UsageError
from twostage.noise import uniform_noise


@torch.no_grad()
def sample(
    prior: Prior,
    *,
    count: int,
    condition: Tensor | None = None,
    known: Tensor | None = None,
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
        condition: int64 [count, A] for a conditional prior; None without classes, or for no label after label dropout.
        known: int64 [count, G, n, *rest of the grid], the codes of the first n rows (frames) of every item, kept.
        temperature: logits are divided by it; 0 takes the most probable code (and needs no noise).
        top_k: keep this many of the most probable codes; 0 keeps all.
        top_p: keep the smallest set of most probable codes whose probability reaches this; 1 keeps all.
        seed: 0 to 2^64 - 1.
        first_item: number of the first item, so that a long job can be cut into pieces without changing any item.
        batch_size: items drawn side by side; changes memory and speed, not the noise.
        device: where to compute.
        progress: called after each step with (codes so far, codes in all), known ones included.

    Returns:
        codes int64 [count, G, *grid] on `device`.

    Raises:
        UsageError: an argument is out of its range, or the condition or the known codes do not fit the prior.
        RunError: the logits of the first code to draw are not finite.
    """
    check_arguments(
        prior,
        count=count,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        first_item=first_item,
        batch_size=batch_size,
    )
    check_condition(
        None if condition is None else condition.cpu(),
        classes=prior.classes,
        optional=prior.condition_optional,
        batch_size=count,
    )
    symbols = math.prod(prior.code_shape)
    known_NB = known_symbols(prior, known, count=count).to(device)
    if known is not None and len(known_NB) == symbols:
        return known.to(device, copy=True)
    batches = [torch.empty((0, *prior.code_shape), dtype=torch.int64, device=device)]
    for start in range(0, count, batch_size):
        items = min(batch_size, count - start)
        noise_BN = uniform_noise(seed=seed, first_item=first_item + start, count=items, symbols=symbols)
        condition_BA = None if condition is None else condition[start : start + items].to(device)
        codes = _sample_batch(
            prior,
            noise_NB=noise_BN.T.contiguous().to(device),
            known_NB=known_NB[:, start : start + items],
            condition_BA=condition_BA,
            draw_code=partial(draw, temperature=temperature, top_k=top_k, top_p=top_p),
            report=partial(report_progress, progress, before=start * symbols, total=count * symbols),
        )
        batches.append(codes)
    return torch.cat(batches)


def _sample_batch(
    prior: Prior,
    *,
    noise_NB: Tensor,
    known_NB: Tensor,
    condition_BA: Tensor | None,
    draw_code: Callable[[Tensor, Tensor], Tensor],
    report: Callable[[int], None],
) -> Tensor:
    """Codes [B, G, *grid] of one batch, known ones first; `report` is told the number of codes so far."""
    items = noise_NB.shape[1]
    state = prior.initial_state(items, condition_BA)
    symbols: list[Tensor] = []
    for position, noise_B in enumerate(noise_NB):
        logits_BK, state = prior.step(state, symbols[-1] if symbols else None, condition_BA)
        # Looked at once per batch: a diverged prior shows at once, and a look per code would stall an accelerator.
        if position == len(known_NB) and not usable(logits_BK):
            raise RunError(
                "Expected finite logits from the prior, got NaN or infinity: its training diverged, take an earlier "
                "checkpoint or train again."
            )
        symbols.append(known_NB[position] if position < len(known_NB) else draw_code(logits_BK, noise_B))
        report(len(symbols) * items)
    # Symbols run over positions outside and codebooks inside; codes are stored the other way round.
    codes_BSG = torch.stack(symbols, dim=1).view(items, -1, prior.code_shape[0])
    return codes_BSG.transpose(1, 2).reshape(items, *prior.code_shape)


def known_symbols(prior: Prior, known: Tensor | None, *, count: int) -> Tensor:
    """Known codes in the order of the symbols, int64 [n, count]; n = 0 where nothing is known."""
    codebooks, rows, *rest = prior.code_shape
    if known is None:
        return torch.empty(0, count, dtype=torch.int64)
    expected, came = [count, codebooks, f"0 to {rows}", *rest], list(known.shape)
    same_but_rows = came[:2] + came[3:] == expected[:2] + expected[3:] and len(came) == len(expected)
    if not same_but_rows or came[2] > rows or known.dtype != torch.int64:
        raise UsageError(
            f"Expected known codes of shape [{', '.join(map(str, expected))}] and type int64, got {came} and "
            f"{known.dtype}: give the first rows of every item."
        )
    outside = known[(known < 0) | (known >= prior.codebook_size)]
    if outside.numel():
        raise UsageError(
            f"Expected known codes 0 to {prior.codebook_size - 1}, got {int(outside[0])}: use codes of the codebook "
            "this prior was built for."
        )
    return known.flatten(2).permute(2, 1, 0).flatten(0, 1)


def report_progress(progress: Callable[[int, int], None] | None, done: int, *, before: int, total: int) -> None:
    if progress is not None:
        progress(before + done, total)


def usable(logits_BK: Tensor) -> bool:
    """Whether every row has a finite maximum; minus infinity alone rules a code out and is fine."""
    return bool(logits_BK.amax(dim=1).isfinite().all())


def check_arguments(
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
