"""What a running job shows: a tqdm bar on a terminal, plain lines at a modest rate anywhere else."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

from twostage.printable import printable

PLAIN_LINE_SECONDS = 10.0

_mute = False


def mute() -> None:
    """Show nothing from now on: of several processes of a job only the first speaks."""
    global _mute
    _mute = True


def is_mute() -> bool:
    """Whether this process is not the one that speaks."""
    return _mute


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Within, nothing is said or shown: what is done is no part of the job."""
    global _mute
    before, _mute = _mute, True
    try:
        yield
    finally:
        _mute = before


def say(line: str) -> None:
    """One line on stderr, without tearing a bar that is being drawn; whatever names it holds, it stays one line."""
    if _mute or sys.stderr is None:  # closed by the caller
        return
    with contextlib.suppress(OSError):  # a full disk or a reader that left must not end a training
        tqdm.write(printable(line), file=sys.stderr)


class _Bar(tqdm):
    """A bar that shows as remaining time what it is told by `left`."""

    left: Callable[[], str] | None = None

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the format may show; tqdm asks for it whenever it draws."""
        told = self.left() if self.left is not None else None
        known: dict[str, Any] = super().format_dict
        return known if told is None else known | {"bar_format": _TOLD.replace("LEFT", told)}


_TOLD = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<LEFT, {rate_fmt}{postfix}]"
"""tqdm's own format with another remaining time."""


class Progress:
    """Counts `total` units from `done`; use as a context manager.

    On a terminal: bar, rate, remaining time and the latest numbers. Into a file or pipe: a line at most every
    `PLAIN_LINE_SECONDS` and one at the end.

    Args:
        label: what is being done.
        total, done: units in all, and those done before.
        unit: what they are called.
        left: the remaining time in words after `done` units, of work whose units take different times; unless given, it
            follows from their rate.
    """

    def __init__(
        self,
        label: str,
        *,
        total: int,
        done: int = 0,
        unit: str = "step",
        left: Callable[[int], str] | None = None,
    ) -> None:
        self.label, self.total, self.done, self.unit, self._left = label, total, done, unit, left
        self._numbers: dict[str, str] = {}
        self._started = self._last_line = time.monotonic()
        self._first = done
        self._bar = (
            _Bar(total=total, initial=done, desc=label, unit=unit, file=sys.stderr, dynamic_ncols=True, smoothing=0.1)
            if sys.stderr is not None and sys.stderr.isatty() and not _mute
            else None
        )
        if self._bar is not None and left is not None:
            self._bar.left = lambda: left(self.done)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is None:
            self._line()
        else:
            with contextlib.suppress(OSError):
                self._bar.close()

    def advance_shared(self, count: int, processes: int) -> None:
        """`count` more units are done by this process, and about as many by each of the others."""
        self.advance(min(count * processes, self.total - self.done))

    def advance(self, count: int = 1, numbers: Mapping[str, str] | None = None) -> None:
        """`count` more units are done; `numbers` replace what is shown behind the bar."""
        self.done += count
        if numbers:
            self._numbers |= numbers
        if self._bar is not None:
            with contextlib.suppress(OSError):  # a terminal that was closed must not end a training before it is saved
                if numbers:
                    self._bar.set_postfix(self._numbers, refresh=False)
                self._bar.update(count)
        elif self.done < self.total and time.monotonic() - self._last_line >= PLAIN_LINE_SECONDS:
            self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        elapsed = self._last_line - self._started
        rate = (self.done - self._first) / elapsed if elapsed > 0 else 0.0
        left = f", {self._left(self.done)} left" if self._left is not None and self.done < self.total else ""
        numbers = "".join(f", {name} {value}" for name, value in self._numbers.items())
        say(f"{self.label}: {self.done}/{self.total} {self.unit}s, {rate:.1f} {self.unit}s/s{left}{numbers}")


def following(label: str, *, unit: str) -> Callable[[int, int], None]:
    """What takes (done, total) from work that counts by itself: a `Progress` from its first word to its last."""
    shown: list[Progress] = []

    def told(done: int, total: int) -> None:
        if not shown:
            shown.append(Progress(label, total=total, unit=unit))
        shown[0].advance(done - shown[0].done)
        if done == total:
            shown.pop().__exit__()

    return told
