"""One command in several processes: which verbs work so, and who speaks before the processes know of one another.

torchrun starts the command in every process with its place in the environment (WORLD_SIZE, RANK, LOCAL_RANK). Trainings
share every batch and evaluations the batches of a data set; any other verb would do the same work several times over
and is refused.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from twostage.errors import SaidElsewhere, TwoStageError, UsageError

SHARED_VERBS = ("train", "train-codebook", "train-decoder", "train-prior", "train-baseline", "evaluate")
LONGEST_TIMEOUT_SECONDS = 7 * 24 * 3600
_PATIENCE_SECONDS = 30


def several_processes() -> bool:
    """Whether this process is one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


@contextmanager
def one_voice() -> Iterator[None]:
    """While the command is read: of the processes of a machine, which all read the same, the first alone speaks."""
    if not several_processes() or os.environ.get("LOCAL_RANK", "0") == "0":
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            yield
        except (TwoStageError, SystemExit) as error:
            code = error.exit_code if isinstance(error, TwoStageError) else error.code
            if code:
                # torchrun ends the others when it sees one end: the one that speaks is to be the first to end.
                time.sleep(_PATIENCE_SECONDS)
            raise SaidElsewhere(int(code or 0)) from error


def check_shared(verb: str) -> None:
    """Raise UsageError where several processes were started for a verb that is the work of one."""
    if several_processes() and verb not in SHARED_VERBS:
        raise UsageError(
            f"{verb} is the work of one process, but torchrun started {os.environ['WORLD_SIZE']}: run it without "
            f"torchrun (with several processes: {', '.join(SHARED_VERBS)})."
        )


def run_command(run: Callable[[Any], None], command: Any) -> None:
    """Run a command, in a process group if there are several processes."""
    if not several_processes():
        run(command)
        return
    from twostage.distributed import process_group

    from ..runs.device import pick_device

    if not 0 < command.timeout_seconds <= LONGEST_TIMEOUT_SECONDS:
        raise UsageError(
            f"--timeout-seconds must be more than 0 and at most {LONGEST_TIMEOUT_SECONDS}, but is "
            f"{command.timeout_seconds}."
        )
    with process_group(pick_device(command.device), timeout_seconds=command.timeout_seconds):
        run(command)
