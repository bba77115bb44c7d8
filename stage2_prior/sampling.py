"""Ancestral sampling from any `Prior`, one cached step per code.

Each item has its own noise: one uniform number per code from a Philox counter keyed by (seed, item number), drawn up
front on the CPU and turned into a code by the inverse of the cumulative distribution. Which other items share the
batch, and on which device, changes nothing but rounding. The decisions whether a sequence ends have numbers of their
own, so that an item drawn with a fixed length has the codes of the free one as far as both go.

Completion: the codes of some positions may be given. They are kept as they are and only walked through, so that an item
completed from codes of its own, under its own seed, is that item again. Where the first rows (or positions) are given,
the others follow p(rest | given). Under a mask a code follows p(code | all before it), known or drawn: what is known of
later positions, and of finer levels of a hierarchy, has no say in it.

The distribution is sharpened in this order: guidance (`stage2_prior.guidance`), then temperature, then top-k, then
top-p on what is left; equal logits are ranked by code number. The end is always drawn from its own probability given
the condition: sharpening it would stretch every sequence whose end is never the likelier decision to its longest.

Shape suffixes: B items, G codebooks, P positions, K codes, N symbols of one item, T positions of a sequence, A
attributes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from stage2_prior.guidance import Walk, check_guidable
from stage2_prior.prior import Prior, check_code_values, check_condition
from twostage.categorical import draw
from twostage.errors import RunError, UsageError
from twostage.noise import uniform_noise

_END_STREAM = 2  # of `uniform_noise`; codes draw from stream 0 and pixels or sound samples from stream 1


@dataclass(frozen=True)
class Sampled:
    """Items drawn from a prior."""

    codes: Tensor
    """int64 [B, G, *grid]; of a prior with an end [B, G, T], T the longest of the lengths, 0 behind each."""
    lengths: Tensor | None
    """Positions of every item, int64 [B]; None of grids."""


@dataclass(frozen=True)
class _Known:
    """Codes that are given."""

    codes_NB: Tensor
    """int64, in the order of the symbols: of the first rows, or of all."""
    kept_N: list[bool]
    """Which of them count."""

    def at(self, symbol: int) -> Tensor | None:
        """Codes [B] of a symbol; None where it is to be drawn."""
        return self.codes_NB[symbol] if symbol < len(self.kept_N) and self.kept_N[symbol] else None


@torch.no_grad()
def sample(
    prior: Prior,
    *,
    count: int,
    condition: Tensor | None = None,
    known: Tensor | None = None,
    known_mask: Tensor | None = None,
    length: int | None = None,
    guidance: float = 1.0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    first_item: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Sampled:
    """Draw items `first_item` .. `first_item + count - 1` of the stream that `seed` names, on `device`.

    Args:
        prior: where the codes come from; its weights must be on `device`.
        count: items to draw.
        condition: int64 [count, A] for a conditional prior; None without classes, or for no label after label dropout.
        known: int64 [count, G, n, *rest of the grid], the codes of the first n rows (positions) of every item, kept; no
            sequence ends before them. With a mask [count, G, *grid], kept where it is true.
        known_mask: bool [*grid], [N] of a hierarchy: the positions whose codes are known, the same of every item; for a
            prior without an end alone.
        length: positions of every item, for a prior with an end alone; None draws each item's own.
        guidance: 1 is the prior given the condition, 0 the prior without it, above 1 strengthens the condition.
        temperature: logits of codes are divided by it; 0 takes the most probable code (and needs no noise).
        top_k: keep this many of the most probable codes; 0 keeps all.
        top_p: keep the smallest set of most probable codes whose probability reaches this; 1 keeps all.
        seed: 0 to 2^64 - 1.
        first_item: number of the first item, so that a long job can be cut into pieces without changing any item.
        batch_size: items drawn side by side, until all of them have ended; changes memory and speed, not the noise.
        device: where to compute.
        progress: called after each step with (codes so far, most codes there can be), known ones included; a batch
            whose items have all ended counts in full.

    Raises:
        UsageError: an argument is out of its range, or the condition or the known codes do not fit the prior.
        RunError: the logits of the first code to draw are not finite.
    """
    _check_arguments(
        prior,
        count=count,
        guidance=guidance,
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
    if guidance != 1:
        check_guidable(prior, condition)
    kept = _known_codes(prior, known, known_mask, count=count)
    positions = _positions(prior, length, known=sum(kept.kept_N) // prior.code_shape[0])
    symbols = positions * prior.code_shape[0]
    if known is not None and sum(kept.kept_N) == symbols:
        lengths = torch.full((count,), positions, device=device) if prior.has_end else None
        return Sampled(known.to(device, copy=True), lengths)
    batches = []
    for start in range(0, count, batch_size):
        items = min(batch_size, count - start)
        noise = partial(uniform_noise, seed=seed, first_item=first_item + start, count=items)
        ends_freely = prior.has_end and length is None
        batch = _sample_batch(
            prior,
            noise_NB=noise(symbols=symbols).T.contiguous().to(device),
            end_noise_TB=noise(symbols=positions, stream=_END_STREAM).T.to(device) if ends_freely else None,
            known=_Known(kept.codes_NB[:, start : start + items].to(device), kept.kept_N),
            condition_BA=None if condition is None else condition[start : start + items].to(device),
            guidance=guidance,
            draw_code=partial(draw, temperature=temperature, top_k=top_k, top_p=top_p),
            report=partial(_report_progress, progress, before=start * symbols, total=count * symbols),
        )
        batches.append(batch)
    return _joined(prior, batches, device=device)


def _sample_batch(
    prior: Prior,
    *,
    noise_NB: Tensor,
    end_noise_TB: Tensor | None,
    known: _Known,
    condition_BA: Tensor | None,
    guidance: float,
    draw_code: Callable[[Tensor, Tensor], Tensor],
    report: Callable[[int], None],
) -> Sampled:
    """One batch, until every item has ended or the noise is used up; without noise for ends none ends.

    `report` is told the number of codes so far.
    """
    symbols, items = noise_NB.shape
    codebooks = prior.code_shape[0]
    lengths_B = torch.full((items,), symbols // codebooks, device=noise_NB.device)
    walk = Walk(prior, items, condition_BA, guidance=guidance)
    drawn: list[Tensor] = []
    looked = False
    for n, noise_B in enumerate(noise_NB):
        logits_BK = walk.step(drawn[-1] if drawn else None)
        position, codebook = divmod(n, codebooks)
        known_B = known.at(n)
        if end_noise_TB is not None and codebook == 0 and n and known_B is None:
            ends_B = end_noise_TB[position] < walk.end_logit_B.double().sigmoid()
            lengths_B = torch.where(ends_B & (lengths_B > position), position, lengths_B)
            if bool((lengths_B <= position).all()):
                report(symbols * items)
                break
        # Looked at once per batch: a diverged prior shows at once, and a look per code would stall an accelerator.
        if known_B is None and not looked:
            _check_finite(logits_BK)
            looked = True
        drawn.append(draw_code(logits_BK, noise_B) if known_B is None else known_B)
        report(len(drawn) * items)
    # Symbols run over positions outside and codebooks inside; codes are stored the other way round.
    codes_BGP = torch.stack(drawn, dim=1).unflatten(1, (-1, codebooks)).transpose(1, 2)
    if not prior.has_end:
        return Sampled(codes_BGP.reshape(items, *prior.code_shape), None)
    inside_B1P = torch.arange(codes_BGP.shape[2], device=codes_BGP.device) < lengths_B[:, None, None]
    return Sampled(codes_BGP.where(inside_B1P, 0), lengths_B)


def _joined(prior: Prior, batches: list[Sampled], *, device: torch.device | str) -> Sampled:
    """All batches; sequences are padded to the longest."""
    shape = (prior.code_shape[0], 0) if prior.has_end else prior.code_shape
    nothing = Sampled(
        torch.empty((0, *shape), dtype=torch.int64, device=device),
        torch.empty(0, dtype=torch.int64, device=device) if prior.has_end else None,
    )
    batches = [nothing, *batches]
    longest = max(batch.codes.shape[-1] for batch in batches)
    codes = torch.cat([F.pad(batch.codes, (0, longest - batch.codes.shape[-1])) for batch in batches])
    lengths = [batch.lengths for batch in batches if batch.lengths is not None]
    return Sampled(codes, torch.cat(lengths) if lengths else None)


def _positions(prior: Prior, length: int | None, *, known: int) -> int:
    """The most positions of an item.

    Raises:
        UsageError: the length is out of its range, or of a prior without an end.
    """
    most = math.prod(prior.code_shape[1:])
    if length is None:
        return most
    if not prior.has_end:
        raise UsageError("Expected no length because this prior is one over whole grids, got one: leave it out.")
    if not max(known, 1) <= length <= most:
        raise UsageError(
            f"Expected a length of {max(known, 1)} to {most} positions, got {length}: choose one in that range."
        )
    return length


def _known_codes(prior: Prior, known: Tensor | None, mask: Tensor | None, *, count: int) -> _Known:
    """The known codes of all items.

    Raises:
        UsageError: codes or mask do not fit the prior, or there is a mask alone, or one of sequences.
    """
    codebooks, rows, *rest = prior.code_shape
    if mask is not None:
        _check_mask(prior, known, mask)
    if known is None:
        return _Known(torch.empty(0, count, dtype=torch.int64), [])
    expected, came = [count, codebooks, f"0 to {rows}" if mask is None else rows, *rest], list(known.shape)
    same_but_rows = came[:2] + came[3:] == expected[:2] + expected[3:] and len(came) == len(expected)
    fits = same_but_rows and (came[2] <= rows if mask is None else came[2] == rows)
    if not fits or known.dtype != torch.int64:
        raise UsageError(
            f"Expected known codes of shape [{', '.join(map(str, expected))}] and type int64, got {came} and "
            f"{known.dtype}: give the {'first rows' if mask is None else 'codes of all positions'} of every item."
        )
    kept_P = torch.ones(known.shape[2:], dtype=torch.bool).flatten() if mask is None else mask.flatten().cpu()
    codes_PGB = known.flatten(2).permute(2, 1, 0)
    check_code_values(codes_PGB[kept_P], codebook_size=prior.codebook_size, what="known codes")
    return _Known(codes_PGB.flatten(0, 1), kept_P.repeat_interleave(codebooks).tolist())


def _check_mask(prior: Prior, known: Tensor | None, mask: Tensor) -> None:
    if prior.has_end:
        raise UsageError(
            "Expected no mask because this prior is one over sequences, got one: give the first positions."
        )
    if known is None:
        raise UsageError("Expected known codes for the mask, got none: give codes of all positions, or no mask.")
    axes = list(prior.code_shape[1:])
    if list(mask.shape) != axes or mask.dtype != torch.bool:
        raise UsageError(
            f"Expected a mask of known positions of shape {axes} and type bool, got {list(mask.shape)} and "
            f"{mask.dtype}: give one value per position."
        )


def _report_progress(progress: Callable[[int, int], None] | None, done: int, *, before: int, total: int) -> None:
    if progress is not None:
        progress(before + done, total)


def _check_finite(logits_BK: Tensor) -> None:
    """Raise RunError unless every row has a finite maximum; minus infinity alone rules a code out and is fine."""
    if not bool(logits_BK.amax(dim=1).isfinite().all()):
        raise RunError(
            "Expected finite logits from the prior, got NaN or infinity: its training diverged, take an earlier "
            "checkpoint or train again."
        )


def _check_arguments(
    prior: Prior,
    *,
    count: int,
    guidance: float,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    first_item: int,
    batch_size: int,
) -> None:
    limits = [
        ("count", count, count >= 0, "0 or more"),
        ("guidance", guidance, 0 <= guidance < math.inf, "0 (no condition) or a positive number, 1 for none"),
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
