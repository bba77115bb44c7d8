"""SIGINT, SIGTERM and SIGHUP end a training at its next safe point, where a second SIGINT ends it at once, and any
other work where it stands. None leaves anything half-written: files get their names only once they are whole.

SIGHUP is what a terminal sends that is closed; under `nohup`, which has it ignored, it stays ignored.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from twostage.errors import TwoStageError
from twostage.progress import is_mute

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Windows has no SIGHUP."""


def _set_handlers(handle: Callable[[int, FrameType | None], None]) -> dict[int, object]:
    """Let `handle` handle the signals, and return who did before; nobody outside the main thread, which gets none.

    One that the caller of the program has ignored stays so, but for SIGINT: shells start every background job with that
    ignored, and `kill -INT` on one is meant.
    """
    previous: dict[int, object] = {}
    with suppress(ValueError):  # not the main thread: Python delivers no signals here
        for number in SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, handle)
    return previous


class Interrupted(TwoStageError):
    """A signal ended the job at a safe point; what was done is saved."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class SafePoint:
    """Context in which the signals only raise a flag, `received`, that the job reads where it is safe to stop."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, object] = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
        # os.write, because a signal may arrive in the middle of a print.
        again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        if not is_mute():
            with suppress(OSError):  # the terminal may be gone
                os.write(2, f"\nstopping at the next safe point{again}\n".encode())

    def __enter__(self) -> "SafePoint":
        self._previous = _set_handlers(self._handle)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if error is None and self.received is not None:
            signal.raise_signal(self.received)  # it came behind the last safe point: whoever else waits for it, gets it


class Stopped(KeyboardInterrupt):
    """A signal ended a command in work that has no safe point to wait for; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopAtOnce:
    """Context of a command: the first signal raises `Stopped`, one more ends the process there and then.

    `Stopped` removes unfinished files on its way out; whoever does not wait for that loses no more than their removal.

    Args:
        keep: leave a second signal this meaning behind the block, in a process that ends there: Python's own handlers
            would print a traceback from within its shutdown.
    """

    def __init__(self, *, keep: bool) -> None:
        self.keep, self.received = keep, False
        self._previous: dict[int, object] = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = True
        raise Stopped(number)

    def __enter__(self) -> "StopAtOnce":
        self._previous = _set_handlers(self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self.keep and self.received:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
