"""Bits proved by bytes: codes of a split written with the range coder, read back, and their length compared.

Compared are the bits in the stream with `evaluate`'s own: -log2 p(z), which comes from the parallel `log_prob` and not
from the steps that the coder took, and of recordings also what their numbers of codes and of samples cost, and labels
and speakers under training frequencies. The header is counted apart. The coder may need 0.1 % more, for probabilities
rounded to 24 bits, and 64 bits, for its last words; with few items the latter weigh heavily.
"""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from stage2_prior import Prior
from twostage.errors import RunError
from twostage.metrics.length_tables import LabelTable, remainder_bits
from twostage.metrics.ratios import ratio
from twostage.metrics.statistics import evenly
from twostage.printable import counted
from twostage.progress import Progress, say
from twostage.storage.codes import CodeFile

from ..modality.audio import condition_of, lengths_of, speakers_of
from ..runs.run import Run, is_finished
from .range_coder import decode_codes, encode_codes
from .rate import label_frequencies, learned_log_prob
from .stream_content import Content, Known, StoredPrior
from .stream_header import overhead_bits


@dataclass(frozen=True)
class RoundTrip:
    """What it took to write the codes of some items of a split, and whether they came back."""

    model: str
    labels: str
    """`none` (there is none to know), `marginalised`, or `paid`: label and speaker are written too."""
    items: int
    """Spread over the split."""
    identical: bool
    """Whether everything decoded is what was encoded."""
    bits_reported: float
    """Sum over the items of -log2 p(z), labels marginalised or given, by `log_prob`; of recordings also of their
    lengths in codes and samples, and of labels and speakers that are paid."""
    bits_written: int
    """Whole 32-bit words, the header apart."""
    header_bits: int
    bits_paid: float
    """Sum of -log2 max_y p(y) p(z|y): what it would be if each item's cheapest label were written beside its codes.
    `bits_reported` where labels are written."""
    encode_seconds: float
    decode_seconds: float

    @property
    def excess_bits(self) -> float:
        """Written minus reported; below 0 for luck with the rounding."""
        return self.bits_written - self.bits_reported

    @property
    def excess_percent(self) -> float | None:
        """Written over reported; None where the codes are certain and cost nothing."""
        return _percent_more(self.bits_written, self.bits_reported)

    @property
    def within_bound(self) -> bool:
        """Whether the length is the reported one to 0.1 % and 64 bits, either way."""
        return abs(self.excess_bits) <= 0.001 * self.bits_reported + 64


def round_trips(run: Run, split: str, device: torch.device) -> tuple[RoundTrip, ...]:
    """`check_round_trip` of `evaluation.coded_items` items, of every model with a finished prior; none of no items."""
    items = run.recipe.evaluation.coded_items
    names = [name for name in run.trained_models() if items and is_finished(run.prior_folder(name))]
    return tuple(check_round_trip(run, name, split, items, device) for name in names)


def check_round_trip(run: Run, model: str, split: str, items: int, device: torch.device) -> RoundTrip:
    """Encode and decode the codes of `items` items of a split with the trained prior of a discrete model.

    The codes are those that `evaluate` wrote into the run, one stream for all. An inexact round trip is told in the
    result, not raised.

    Args:
        items: at most; fewer where the split has fewer.

    Raises:
        UsageError: the model has no codes.
        RunError: stage one, prior or codes are missing, unfinished, damaged or do not belong together.
    """
    stage1 = run.codebook(model, device)
    prior = run.prior(model, stage1, device).model
    remedy = f"run evaluate {run.path} --split {split}, which extracts them"
    train, file = (run.codes(model, name, stage1_sha256=stage1.sha256, remedy=remedy) for name in ("train", split))
    batch_size, rows = run.recipe.evaluation.batch_size, evenly(len(file.codes), items)
    where: dict[str, Any] = {"device": device, "batch_size": batch_size}
    if prior.has_end:
        coded = _recordings(prior, stage1.model, train, file, rows, **where)
    else:
        coded = _images(prior, train, file, rows, **where)
    with Progress("entropy coding", total=len(rows), unit="item") as progress:
        began = time.perf_counter()
        data = encode_codes(prior, coded.content, coded.known, batch_size=batch_size)
        halfway = time.perf_counter()
        identical = _reads_back(prior, data, coded)
        ended = time.perf_counter()
        progress.advance(len(rows))
    return RoundTrip(
        model=model,
        labels=coded.known.labels,
        items=len(rows),
        identical=identical,
        bits_reported=coded.bits_reported,
        bits_written=8 * len(data) - overhead_bits(data),
        header_bits=overhead_bits(data),
        bits_paid=coded.bits_paid,
        encode_seconds=halfway - began,
        decode_seconds=ended - halfway,
    )


@dataclass(frozen=True)
class _Coded:
    """Items to be written, and what `RoundTrip` says that they cost."""

    content: Content
    known: Known
    bits_reported: float
    bits_paid: float


def _images(
    prior: Prior, train: CodeFile, file: CodeFile, rows: np.ndarray, *, device: torch.device, batch_size: int
) -> _Coded:
    """Codes of images: labels marginalised, or paid with the cheapest label of each."""
    codes, frequencies = torch.from_numpy(file.codes[rows]).to(device), label_frequencies(prior, train.labels)
    bits = []
    for start in range(0, len(codes), batch_size):
        marginal_B, terms_YB = learned_log_prob(prior, codes[start : start + batch_size], frequencies)
        bits.append(-torch.stack((marginal_B, terms_YB.amax(0))).cpu().numpy() / np.log(2))
    marginalised, paid = (float(total) for total in np.concatenate(bits, axis=1).sum(1))
    return _Coded(Content(codes), Known(frequencies), marginalised, paid)


@torch.no_grad()
def _recordings(
    prior: Prior,
    codebook: Any,
    train: CodeFile,
    file: CodeFile,
    rows: np.ndarray,
    *,
    device: torch.device,
    batch_size: int,
) -> _Coded:
    """Codes of recordings, with their lengths; labels and speakers are paid where prior or decoder see them."""
    sizes, conditional = (file.header.classes, file.header.speakers), bool(prior.classes)
    table = LabelTable.of(
        train.labels,
        speakers_of(train),
        classes=sizes[0] if conditional else 0,
        speakers=sizes[1] if conditional or codebook.speakers else 0,
    )
    labels, speakers, lengths = file.labels[rows], speakers_of(file)[rows], lengths_of(file)[rows]
    assert file.samples is not None
    of_pair = np.divmod(np.arange(table.bits_YP.size), table.bits_YP.shape[1])
    written = conditional or table.bits_YP.size > 1
    known = Known(
        pairs=np.exp2(-table.bits_YP.ravel()) if written else None,
        conditions=condition_of(*of_pair, sizes) if conditional else None,
        stride=codebook.stride,
    )
    codes, lengths_N = torch.from_numpy(file.codes[rows]).to(device), torch.from_numpy(lengths)
    condition = torch.from_numpy(condition_of(labels, speakers, sizes)).to(device) if conditional else None
    bits = float(table.bits(labels, speakers).sum() + len(rows) * remainder_bits(codebook.stride))
    for start in range(0, len(rows), batch_size):
        batch = slice(start, start + batch_size)
        given = None if condition is None else condition[batch]
        parts = prior.log_prob_parts(codes[batch], given, lengths_N[batch].to(device))
        bits -= float((parts.codes.double() + parts.end.double()).sum()) / math.log(2)
    content = Content(
        codes,
        lengths_N,
        torch.from_numpy(table.numbers(labels, speakers)) if written else None,
        torch.from_numpy(lengths * codebook.stride - file.samples[rows]),
    )
    return _Coded(content, known, bits, bits)


def _reads_back(prior: StoredPrior, data: bytes, coded: _Coded) -> bool:
    content = coded.content
    try:
        decoded = decode_codes(prior, data, len(content.codes), coded.known, device=content.codes.device)
    except RunError as error:
        say(f"a stream did not read back: {error}")
        return False
    longest = decoded.codes.shape[-1]
    return decoded.equals(replace(content, codes=content.codes[..., :longest]))


def round_trip_line(trip: RoundTrip) -> str:
    """The trip in one line, for terminal and report."""
    verdict = "decoded codes identical" if trip.identical else "DECODED CODES DIFFER"
    bound = "within" if trip.within_bound else "NOT within"
    labels, excess = "" if trip.labels == "none" else f", labels {trip.labels}", trip.excess_percent
    if trip.labels == "marginalised":
        labels += f" (paid against marginalised: {_shown(_percent_more(trip.bits_paid, trip.bits_reported), 2)})"
    return (
        f"{trip.model}: {counted(trip.items, 'items')} in one stream{labels}: "
        f"{trip.bits_reported:.1f} bits reported, {trip.bits_written} written ({_shown(excess, 3)}, "
        f"{trip.excess_bits:+.1f} bits, {bound} 0.1 % + 64) and {trip.header_bits} of header, "
        f"{verdict}, {trip.encode_seconds:.1f} s + {trip.decode_seconds:.1f} s"
    )


def _percent_more(part: float, whole: float) -> float | None:
    share = ratio(part, whole)
    return None if share is None else 100 * (share - 1)


def _shown(percent: float | None, digits: int) -> str:
    return "-" if percent is None else f"{percent:+.{digits}f} %"
