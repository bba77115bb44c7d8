"""What reading did to recordings, in sentences with numbers: for folders, single files and `check-data` alike."""

from collections.abc import Collection
from dataclasses import dataclass, field

from twostage.data.audio.decode import CANCELLED, CLIPPED, JOINED, Decoded

LOSSES = (JOINED, CANCELLED, CLIPPED)
"""Remarks on what is odd about a file, whatever rate it is read at."""


@dataclass
class _Seen:
    count: int = 0
    first: str = ""
    clipped_samples: int = 0
    worst: float = 0.0
    """Largest peak, or what is least left of the power."""
    worst_name: str = ""


@dataclass
class Remarks:
    """Counts remarks on recordings; keeps none of these, and no names but the first and the worst."""

    only: Collection[str] | None = None
    """The remarks to count; None: all."""
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def add(self, name: str, decoded: Decoded) -> None:
        for remark in decoded.remarks:
            if self.only is not None and remark not in self.only:
                continue
            seen = self._seen.setdefault(remark, _Seen(first=name))
            worst = decoded.power_left if remark == CANCELLED else decoded.peak
            if not seen.count or (worst < seen.worst if remark == CANCELLED else worst > seen.worst):
                seen.worst, seen.worst_name = worst, name
            seen.count += 1
            seen.clipped_samples += decoded.clipped_samples if remark == CLIPPED else 0

    def lines(self, total: int) -> list[str]:
        """One sentence per remark, `total` being the number of recordings."""
        return [
            f"{seen.count} of {total} recordings: {remark} (first: {seen.first!r}){_numbers(remark, seen)}"
            for remark, seen in self._seen.items()
        ]


def remark_on(decoded: Decoded, remark: str) -> str:
    """The remark on one recording, with its numbers."""
    seen = _Seen(1, "", decoded.clipped_samples if remark == CLIPPED else 0)
    seen.worst = decoded.power_left if remark == CANCELLED else decoded.peak
    return remark + _numbers(remark, seen)


def _numbers(remark: str, seen: _Seen) -> str:
    where = f" ({seen.worst_name!r})" if seen.count > 1 else ""
    if remark == CANCELLED:
        return f", which leaves {'down to ' if seen.count > 1 else ''}{seen.worst:.2%} of the power{where}"
    if remark == CLIPPED and seen.clipped_samples:
        return f", {seen.clipped_samples} samples on the way, from up to {seen.worst:.3g} times full scale{where}"
    return ""
