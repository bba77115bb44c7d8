"""Ancestral sampling of sequences with an end from a `WaveNet`, one cached step per code.

Each item has its own noise, keyed by (seed, item number): the numbers for the codes are those of `stage2_prior.sample`,
and the decisions whether the sequence ends have numbers of their own. So which other items share the batch changes
nothing but rounding, and an item drawn with a fixed length has the codes of the free one as far as both go.

Temperature, top-k and top-p sharpen the codes. The end is always drawn from its own probability: sharpening it would
stretch every sequence whose end is never the likelier decision to `max_length`.

Shape suffixes: B items, G codebooks, T positions, N symbols of one item, A attributes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from stage2_prior.prior import check_condition
from stage2_prior.sampling import check_arguments, known_symbols, report_progress, usable
from stage2_prior.wavenet import WaveNet
from twostage.categorical import draw
from twostage.errors import RunError, UsageError
from twostage.noise import uniform_noise

_END_STREAM = 2  # of `uniform_noise`; codes draw from stream 0 and pixels or sound samples from stream 1


@dataclass(frozen=True)
class Sequences:
    """Codes int64 [B, G, T], 0 beyond each item's length; T is the longest of the lengths int64 [B]."""

    codes_BGT: Tensor
    lengths_B: Tensor


@torch.no_grad()
def sample_sequences(
    prior: WaveNet,
    *,
    count: int,
    condition: Tensor | None = None,
    known: Tensor | None = None,
    length: int | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    first_item: int = 0,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Sequences:
    """Draw items `first_item` .. `first_item + count - 1` of the stream that `seed` names.

    Args:
        prior: where the codes come from; its weights must be on `device`.
        count: items to draw.
        condition: int64 [count, A] for a conditional prior; None without classes, or for no label after label dropout.
        known: int64 [count, G, n], the codes of the first n positions of every item, kept; no item ends before them.
        length: positions of every item; None draws each item's own.
        temperature: logits of codes are divided by it; 0 takes the most probable code.
        top_k: keep this many of the most probable codes; 0 keeps all.
        top_p: keep the smallest set of most probable codes whose probability reaches this; 1 keeps all.
        seed: 0 to 2^64 - 1.
        first_item: number of the first item, so that a long job can be cut into pieces without changing any item.
        batch_size: items drawn side by side, until all of them have ended.
        device: where to compute.
        progress: called after each step with (codes so far, most codes there can be), known ones included; a batch
            whose items have all ended counts in full.

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
    known_NB = known_symbols(prior, known, count=count).to(device)
    known_positions = len(known_NB) // prior.code_shape[0]
    if length is not None and not max(known_positions, 1) <= length <= prior.max_length:
        raise UsageError(
            f"Expected a length of {max(known_positions, 1)} to {prior.max_length} positions, got {length}: choose one "
            "in that range."
        )
    positions = prior.max_length if length is None else length
    symbols = positions * prior.code_shape[0]
    batches = []
    for start in range(0, count, batch_size):
        items = min(batch_size, count - start)
        noise = partial(uniform_noise, seed=seed, first_item=first_item + start, count=items)
        end_noise_BT = noise(symbols=positions, stream=_END_STREAM) if length is None else torch.ones(items, positions)
        batch = _sample_batch(
            prior,
            noise_NB=noise(symbols=symbols).T.contiguous().to(device),
            end_noise_TB=end_noise_BT.T.contiguous().to(device),
            known_NB=known_NB[:, start : start + items],
            condition_BA=None if condition is None else condition[start : start + items].to(device),
            draw_code=partial(draw, temperature=temperature, top_k=top_k, top_p=top_p),
            report=partial(report_progress, progress, before=start * symbols, total=count * symbols),
        )
        batches.append(batch)
    return _joined(batches, codebooks=prior.code_shape[0], device=device)


def _sample_batch(
    prior: WaveNet,
    *,
    noise_NB: Tensor,
    end_noise_TB: Tensor,
    known_NB: Tensor,
    condition_BA: Tensor | None,
    draw_code: Callable[[Tensor, Tensor], Tensor],
    report: Callable[[int], None],
) -> Sequences:
    """One batch, until every item has ended or the noise is used up; noise of 1 never ends an item."""
    symbols, items = noise_NB.shape
    codebooks = prior.code_shape[0]
    lengths_B = torch.full((items,), len(end_noise_TB), device=noise_NB.device)
    state = prior.initial_state(items, condition_BA)
    drawn: list[Tensor] = []
    for n, noise_B in enumerate(noise_NB):
        logits_BK, state = prior.step(state, drawn[-1] if drawn else None, condition_BA)
        position, codebook = divmod(n, codebooks)
        if codebook == 0 and n and n >= len(known_NB):
            ends_B = end_noise_TB[position] < state.end_logit_B.double().sigmoid()
            lengths_B = torch.where(ends_B & (lengths_B > position), position, lengths_B)
            if bool((lengths_B <= position).all()):
                break
        # Looked at once per batch: a diverged prior shows at once, and a look per code would stall an accelerator.
        if n == len(known_NB) and not usable(logits_BK):
            raise RunError(
                "Expected finite logits from the prior, got NaN or infinity: its training diverged, take an earlier "
                "checkpoint or train again."
            )
        drawn.append(known_NB[n] if n < len(known_NB) else draw_code(logits_BK, noise_B))
        report(len(drawn) * items)
    report(symbols * items)
    codes_BGT = torch.stack(drawn, dim=1).unflatten(1, (-1, codebooks)).transpose(1, 2)
    inside_B1T = torch.arange(codes_BGT.shape[2], device=codes_BGT.device) < lengths_B[:, None, None]
    return Sequences(codes_BGT.where(inside_B1T, 0), lengths_B)


def _joined(batches: list[Sequences], *, codebooks: int, device: torch.device | str) -> Sequences:
    """All batches, padded to the longest."""
    nothing = Sequences(
        torch.empty(0, codebooks, 0, dtype=torch.int64, device=device),
        torch.empty(0, dtype=torch.int64, device=device),
    )
    batches = [nothing, *batches]
    longest = max(batch.codes_BGT.shape[2] for batch in batches)
    codes = [F.pad(batch.codes_BGT, (0, longest - batch.codes_BGT.shape[2])) for batch in batches]
    return Sequences(torch.cat(codes), torch.cat([batch.lengths_B for batch in batches]))
