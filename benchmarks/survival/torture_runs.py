"""What the survival tests share: the real command in a process of its own, a run made ready, a run's fingerprint.

Importing torch costs some seconds of processor time, which a hundred starts would spend on nothing. `start` therefore
forks a process that has imported everything and has run nothing: the child gets its own process group, its own streams
and the default signal handlers, and calls what the console script calls, with the same arguments. With a `launcher`
the command is executed in a new interpreter instead.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import matplotlib.backends.backend_agg  # noqa: F401  this and what follows: imported for the children
import torch
import torch._dynamo  # an optimiser imports it
from torture_recipes import Scenario, write_recipe

from twostage.storage.atomic import ASIDE_PREFIX, TEMPORARY_PREFIX
from twostage_pipelines.cli import main as cli

FRESH = (sys.executable, "-m", "twostage_pipelines")
"""A launcher: the command in an interpreter of its own. That of torchrun would stand here too."""
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Case:
    """A scenario made ready in a folder of its own."""

    scenario: Scenario
    folder: Path
    recipe: Path
    base: Path
    """The run before the command; copied for every point."""
    whole: dict[str, str]
    """Fingerprint of the run after the command, uninterrupted."""
    seconds: float
    """What that took."""

    def fresh_run(self, name: str) -> Path:
        """A new copy of the run before the command."""
        run = self.folder / name
        shutil.rmtree(run, ignore_errors=True)
        if self.base.is_dir():
            shutil.copytree(self.base, run)
        return run

    def words(self, run: Path) -> list[str]:
        """The command on that run."""
        return self.scenario.words(self.scenario.command, self.recipe, run)


def prepare(scenario: Scenario, folder: Path) -> Case:
    """Write the recipe, run what the scenario needs, and run it once without disturbance."""
    folder.mkdir(parents=True)
    recipe, base, whole = write_recipe(scenario.kind, folder), folder / "base", folder / "whole"
    for command in scenario.before:
        _done(run(scenario.words(command, recipe, base), log=folder / "log"))
    if base.is_dir():
        shutil.copytree(base, whole)
    ended = _done(run(scenario.words(scenario.command, recipe, whole), log=folder / "log"))
    return Case(scenario, folder, recipe, base, fingerprint(whole), ended.seconds)


def timed(case: Case, launcher: Sequence[str]) -> Case:
    """The case with the time that its command takes under a launcher."""
    ended = _done(run(case.words(case.fresh_run("timed")), log=case.folder / "log", launcher=launcher))
    return replace(case, seconds=ended.seconds)


def _done(ended: "Ended") -> "Ended":
    if ended.code != 0:
        raise RuntimeError(f"exit code {ended.code}: {ended.said}")
    return ended


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Exit code; minus the number of the signal that killed it."""
    said: str
    """Its standard output and error."""
    seconds: float


@dataclass(frozen=True)
class Started:
    """A running command."""

    pid: int
    log: Path
    begun: float

    def send(self, number: int) -> bool:
        """Send a signal, to the command alone; False where it has ended before."""
        if not self.runs():
            return False
        os.kill(self.pid, number)
        return True

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self) -> Ended:
        """Wait for its end; a command that takes longer than `PATIENCE_SECONDS` hangs and is killed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.002)
        seconds = time.monotonic() - self.begun
        return Ended(os.waitstatus_to_exitcode(found[1]), self.log.read_text(errors="replace"), seconds)


def start(
    arguments: Sequence[str | Path],
    *,
    log: Path,
    launcher: Sequence[str] = (),
    inside: Callable[[], object] = lambda: None,
) -> Started:
    """Start `twostage ARGUMENTS`.

    Args:
        arguments: of the command line, the verb first.
        log: file for its standard output and error.
        launcher: command that the arguments are added to; empty: a fork of this process.
        inside: called in a forked child before the command, to place faults.
    """
    words = [*map(str, arguments)]
    torch.set_num_threads(1)
    begun = time.monotonic()
    if launcher:
        with log.open("wb") as file:
            # Not waited for by the object, which `Started.wait` does by number.
            process = subprocess.Popen([*launcher, *words], stdout=file, stderr=file, start_new_session=True)
        process.returncode = 0
        return Started(process.pid, log, begun)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(words, log, inside)
    return Started(pid, log, begun)


def run(arguments: Sequence[str | Path], *, log: Path, launcher: Sequence[str] = ()) -> Ended:
    """Start a command and wait for its end."""
    return start(arguments, log=log, launcher=launcher).wait()


def _child(words: list[str], log: Path, inside: Callable[[], object]) -> NoReturn:
    """The forked process: whatever happens, it ends here and never returns into the parent's code."""
    code: Any = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        inside()
        sys.argv = ["twostage", *words]
        code = cli.main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 of everything that two runs of the same commands must have in common, by path.

    Left out or blanked is what time of day and interruptions may change: seconds of training, older checkpoints (a
    signal saves one more), locks, and the digests and the page that contain those seconds.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in (".lock", "manifest.json", "report.html"):
            continue
        parent = path.parent
        if parent.name.startswith("step-") and parent != max(parent.parent.glob("step-*")):
            continue
        if parent.name == "latest":  # of the control in `killed_runs`
            continue
        data = path.read_bytes()
        if path.name in ("state.json", "evaluation.json"):
            data = json.dumps(_timeless(json.loads(data)), sort_keys=True).encode()
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    if (folder / "report.html").is_file():
        found["report.html"] = "present" if (folder / "report.html").read_bytes().endswith(b"</html>\n") else "cut"
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in ("seconds", "train_seconds")}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def different(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Paths in which two fingerprints differ."""
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def leftovers(folder: Path) -> list[str]:
    """Unfinished files and folders moved aside that were left behind."""
    entries = (entry for entry in folder.rglob(".*") if entry.name.startswith((TEMPORARY_PREFIX, ASIDE_PREFIX)))
    return sorted(str(entry.relative_to(folder)) for entry in entries)
