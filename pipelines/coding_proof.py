"""What writing codes as bytes has shown: the result of `proving.prove`, kept in evaluation.json."""

from dataclasses import dataclass

from twostage.ratios import ratio


@dataclass(frozen=True)
class CodingProof:
    """What it took to write the codes of some items of a split, and whether they came back."""

    model: str
    labels: str
    """`none` (the prior knows no labels), `marginalised`, or `paid`: the cheapest label of each item, written first."""
    items: int
    """Spread over the split."""
    streams: int
    identical: bool
    """Whether every decoded code is the encoded one."""
    bits_reported: float
    """Sum over the items of -log2 p(z) with labels treated as said, by `log_prob`."""
    bits_written: int
    """Whole 32-bit words of all streams, headers apart."""
    header_bits: int
    bits_marginalised: float
    """-log2 sum_y p(y) p(z|y); `bits_reported` unless labels are paid."""
    bits_paid: float
    """-log2 max_y p(y) p(z|y): the same with the cheapest label paid."""
    encode_seconds: float
    decode_seconds: float

    @property
    def excess_bits_per_stream(self) -> float:
        """Written minus reported; below 0 for luck with the rounding."""
        return (self.bits_written - self.bits_reported) / self.streams

    @property
    def excess_percent(self) -> float | None:
        """Written over reported; None where the codes are certain and cost nothing."""
        return _percent_more(self.bits_written, self.bits_reported)

    @property
    def within_bound(self) -> bool:
        """Whether the length is the reported one to 0.1 % and 64 bits a stream, either way."""
        allowed = 0.001 * self.bits_reported + 64 * self.streams
        return abs(self.bits_written - self.bits_reported) <= allowed


def proof_line(proof: CodingProof) -> str:
    """The proof in one line, for terminal and report."""
    verdict = "decoded codes identical" if proof.identical else "DECODED CODES DIFFER"
    bound = "within" if proof.within_bound else "NOT within"
    paid, excess = _percent_more(proof.bits_paid, proof.bits_marginalised), proof.excess_percent
    labels = "" if proof.labels == "none" else f", labels {proof.labels} (paid against marginalised: {_shown(paid, 2)})"
    return (
        f"{proof.model}: {proof.items} items in {proof.streams} stream{'s' if proof.streams > 1 else ''}{labels}: "
        f"{proof.bits_reported:.1f} bits reported, {proof.bits_written} written ({_shown(excess, 3)}, "
        f"{proof.excess_bits_per_stream:+.1f} bits per stream, {bound} 0.1 % + 64) and {proof.header_bits} of header, "
        f"{verdict}, {proof.encode_seconds:.1f} s + {proof.decode_seconds:.1f} s"
    )


def _percent_more(part: float, whole: float) -> float | None:
    share = ratio(part, whole)
    return None if share is None else 100 * (share - 1)


def _shown(percent: float | None, digits: int) -> str:
    return "-" if percent is None else f"{percent:+.{digits}f} %"
