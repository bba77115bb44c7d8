"""Bits proved by bytes: codes of a split written with the range coder, read back, and their length compared.

Compared are the bits in the streams with `evaluate`'s own -log2 p(z), which comes from the parallel `log_prob` and not
from the steps that the coder took. The header is counted apart. The coder may need 0.1 % more, for probabilities
rounded to 24 bits, and 64 bits, for its last words; with few items the latter weigh heavily.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from stage1_vqvae import VQVAE
from stage2_prior import PixelCNN
from twostage.errors import RunError, UsageError
from twostage.metrics.ratios import ratio
from twostage.metrics.statistics import evenly
from twostage.progress import Progress, say
from twostage.storage.codes import load_codes

from ..runs.run import Run
from .range_coder import decode_codes, encode_codes
from .rate import label_frequencies, learned_log_prob
from .stream_header import overhead_bits


@dataclass(frozen=True)
class RoundTrip:
    """What it took to write the codes of some items of a split, and whether they came back."""

    model: str
    labels: str
    """`none` (the prior knows no labels) or `marginalised`."""
    items: int
    """Spread over the split."""
    identical: bool
    """Whether every decoded code is the encoded one."""
    bits_reported: float
    """Sum over the items of -log2 p(z), labels marginalised, by `log_prob`."""
    bits_written: int
    """Whole 32-bit words, the header apart."""
    header_bits: int
    bits_paid: float
    """Sum of -log2 max_y p(y) p(z|y): what it would be if each item's cheapest label were written beside its codes."""
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


def check_round_trip(run: Run, model: str, split: str, items: int, device: torch.device) -> RoundTrip:
    """Encode and decode the codes of `items` items of a split with the trained prior of a discrete model.

    The codes are those that `evaluate` wrote into the run. An inexact round trip is told in the result, not raised.

    Args:
        items: at most; fewer where the split has fewer.

    Raises:
        UsageError: the model has no codes.
        RunError: stage one, prior or codes are missing, unfinished, damaged or do not belong together.
    """
    stage1 = run.stage1(model, device)
    if not isinstance(stage1.model, VQVAE):
        raise UsageError(f"Expected a model with codes, got {model}: choose a vq-vae.")
    prior = run.prior(model, stage1, device).model
    remedy = f"run evaluate {run.path} --split {split}, which extracts them"
    files = {
        name: load_codes(run.codes_file(model, name), expect_stage1_sha256=stage1.sha256, remedy=remedy)
        for name in ("train", split)
    }
    codes = files[split].codes[evenly(len(files[split].codes), items)]
    batch_size = run.recipe.evaluation.batch_size
    frequencies = label_frequencies(prior, files["train"].labels)
    marginalised, paid = _bits(prior, codes, frequencies, device=device, batch_size=batch_size)
    part = torch.from_numpy(codes).to(device)
    with Progress("entropy coding", total=len(codes), unit="item") as progress:
        began = time.perf_counter()
        data = encode_codes(prior, part, label_frequencies=frequencies, batch_size=batch_size)
        halfway = time.perf_counter()
        identical = _reads_back(prior, data, part, frequencies)
        ended = time.perf_counter()
        progress.advance(len(codes))
    return RoundTrip(
        model=model,
        labels="marginalised" if prior.classes else "none",
        items=len(codes),
        identical=identical,
        bits_reported=marginalised,
        bits_written=8 * len(data) - overhead_bits(data),
        header_bits=overhead_bits(data),
        bits_paid=paid,
        encode_seconds=halfway - began,
        decode_seconds=ended - halfway,
    )


def _bits(
    prior: PixelCNN, codes: np.ndarray, frequencies: np.ndarray | None, *, device: torch.device, batch_size: int
) -> tuple[float, float]:
    """Bits of all items with labels marginalised, and with the cheapest label of each paid."""
    bits = []
    for start in range(0, len(codes), batch_size):
        part = torch.from_numpy(codes[start : start + batch_size]).to(device)
        marginal_B, terms_YB = learned_log_prob(prior, part, frequencies)
        bits.append(-torch.stack((marginal_B, terms_YB.amax(0))).cpu().numpy() / np.log(2))
    marginalised, paid = (float(total) for total in np.concatenate(bits, axis=1).sum(1))
    return marginalised, paid


def _reads_back(prior: PixelCNN, data: bytes, codes: torch.Tensor, frequencies: np.ndarray | None) -> bool:
    try:
        decoded = decode_codes(prior, data, len(codes), label_frequencies=frequencies, device=codes.device)
    except RunError as error:
        say(f"a stream did not read back: {error}")
        return False
    return torch.equal(decoded, codes)


def round_trip_line(trip: RoundTrip) -> str:
    """The trip in one line, for terminal and report."""
    verdict = "decoded codes identical" if trip.identical else "DECODED CODES DIFFER"
    bound = "within" if trip.within_bound else "NOT within"
    paid, excess = _percent_more(trip.bits_paid, trip.bits_reported), trip.excess_percent
    labels = "" if trip.labels == "none" else f", labels {trip.labels} (paid against marginalised: {_shown(paid, 2)})"
    return (
        f"{trip.model}: {trip.items} items in one stream{labels}: "
        f"{trip.bits_reported:.1f} bits reported, {trip.bits_written} written ({_shown(excess, 3)}, "
        f"{trip.excess_bits:+.1f} bits, {bound} 0.1 % + 64) and {trip.header_bits} of header, "
        f"{verdict}, {trip.encode_seconds:.1f} s + {trip.decode_seconds:.1f} s"
    )


def _percent_more(part: float, whole: float) -> float | None:
    share = ratio(part, whole)
    return None if share is None else 100 * (share - 1)


def _shown(percent: float | None, digits: int) -> str:
    return "-" if percent is None else f"{percent:+.{digits}f} %"
