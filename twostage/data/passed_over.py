"""Files beside the images of a folder that are not read, counted by the ends of their names: never in silence."""

from collections import Counter
from pathlib import PurePosixPath

from twostage.data.images.formats import UNREAD_SUFFIXES
from twostage.printable import shown

_MOST_KINDS = 1000
_SHOWN_KINDS = 20


class PassedOver:
    """How many files of which suffix were passed over; takes no more memory for more of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, name: str) -> None:
        """Count the file of that name."""
        suffix = PurePosixPath(name).suffix.lower()
        self.counts[suffix if suffix in self.counts or len(self.counts) < _MOST_KINDS else "others"] += 1

    def update(self, other: "PassedOver") -> None:
        """Count all of `other`, too."""
        self.counts.update(other.counts)

    @property
    def images(self) -> int:
        """How many are images of formats that are known and not read."""
        return sum(count for suffix, count in self.counts.items() if suffix in UNREAD_SUFFIXES)

    def __str__(self) -> str:
        """`.heic (12), .svg (6), no suffix (1)`: images of formats that are not read first."""
        ranked = sorted(self.counts.items(), key=lambda item: (item[0] not in UNREAD_SUFFIXES, -item[1], item[0]))
        named = [f"{_word(suffix)} ({count})" for suffix, count in ranked[:_SHOWN_KINDS]]
        beyond = sum(count for _, count in ranked[_SHOWN_KINDS:])
        return ", ".join(named) + (f" and {beyond} more" if beyond else "")

    @property
    def advice(self) -> str:
        """What to do about images among them, as the end of a sentence; empty without any."""
        return f"; convert the {self.images} images among them to PNG or JPEG to have them read" if self.images else ""


def _word(suffix: str) -> str:
    """A suffix for a line of a terminal: names come from anywhere."""
    if not suffix:
        return "no suffix"
    literal = shown(suffix)
    return suffix if literal == f"'{suffix}'" else literal
