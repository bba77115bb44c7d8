"""SIGINT and SIGTERM end a job at its next safe point; a second SIGINT ends it at once."""

import os
import signal
from types import FrameType

from twostage.errors import TwoStageError
from twostage.progress import is_mute

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
            os.write(2, f"\nstopping at the next safe point{again}\n".encode())

    def __enter__(self) -> "SafePoint":
        try:
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        except ValueError:  # not the main thread: Python delivers no signals here
            self._previous.clear()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
