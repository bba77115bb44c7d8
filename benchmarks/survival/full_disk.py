"""A disk that fills up while a recipe is trained, evaluated and reported: does the last good checkpoint survive?

    python benchmarks/survival/full_disk.py --levels 20

A run is stopped in the middle of its first training and continued on a small tmpfs, which has room for so much more:
from nothing, in equal parts, to almost all that the rest writes. Expected are exit code 1, one sentence that names the
place and the missing space, no unfinished file, and a newest checkpoint that loads, in every training folder that has
one. Then the disk is made large, and the same command must end with what the undisturbed one made.

The tmpfs is mounted in a mount namespace of its own (`unshare --mount --map-root-user`), which an ordinary user may do
on most systems. Where not, `os.write` raises ENOSPC from the byte on that no longer fits (`--without-mount`): the same
errors at the same files, but it is the product that is asked and not the system.
"""

import argparse
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torture_recipes import SCENARIOS
from torture_runs import Case, different, fingerprint, leftovers, prepare, start

from twostage.errors import RunError
from twostage.storage.checkpoint import load_newest
from twostage.training.loop import Fit

STOP_AT = 5
SPARE_BYTES = 64 << 20


@dataclass(frozen=True)
class Level:
    """What happened with so much room."""

    room_bytes: int
    refused: bool
    """Whether the disk got full."""
    begun: int
    """Training folders that held a checkpoint then."""
    fault: str


def can_mount() -> bool:
    """Whether an unprivileged mount namespace is to be had."""
    words = ["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def stopped_run(case: Case) -> Path:
    """A run that a signal stopped in the middle of its first training."""
    run = case.fresh_run("begun")
    real = Fit.train_step

    def train_step(fit: Fit) -> dict[str, float]:
        if fit.step == STOP_AT:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(fit)

    def place() -> None:
        Fit.train_step = train_step  # type: ignore[method-assign]

    ended = start(case.words(run), log=case.folder / "log", inside=place).wait()
    if ended.code != 143:
        raise RuntimeError(f"exit code {ended.code}: {ended.said}")
    return run


def used_bytes(folder: Path) -> int:
    """Room that a folder takes on a tmpfs, in whole pages, with a page for every entry's sake."""
    return sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in folder.rglob("*"))


def on_tmpfs(case: Case, begun: Path, room: int) -> Level:
    """The continuation on a tmpfs with `room` bytes left; this process must be in a mount namespace of its own."""
    disk = case.folder / "disk"
    disk.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={SPARE_BYTES}", "none", str(disk))
    try:
        run = disk / "run"
        shutil.copytree(begun, run)
        space = os.statvfs(disk)
        used = (space.f_blocks - space.f_bfree) * space.f_frsize
        _mount("-o", f"remount,size={max(used + room, 4096)}", str(disk))
        return _level(case, run, room, lambda: None, lambda: _mount("-o", f"remount,size={SPARE_BYTES}", str(disk)))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def on_counted_bytes(case: Case, begun: Path, room: int) -> Level:
    """The continuation with an `os.write` that has `room` bytes left."""
    run = case.folder / "counted"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(begun, run)
    real = os.write

    def place() -> None:
        left = [room]

        def write(descriptor: int, data: bytes) -> int:
            if descriptor > 2 and len(data) > left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left[0] -= len(data) if descriptor > 2 else 0
            return real(descriptor, data)

        os.write = write

    return _level(case, run, room, place, lambda: None)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _level(case: Case, run: Path, room: int, inside: Callable[[], object], make_room: Callable[[], None]) -> Level:
    ended = start(case.words(run), log=case.folder / "log", inside=inside).wait()
    faults, begun = [], 0
    said = ended.said.strip().splitlines()[-1:]
    if ended.code not in (0, 1) or "Traceback" in ended.said:
        faults.append(f"exit code {ended.code}: {ended.said.strip()[-600:]}")
    elif ended.code == 1 and not ("no space left" in said[0].lower() and str(run) in said[0]):
        faults.append(f"the message names not both place and space: {said[0]}")
    for folder in sorted((run / "models").glob("*/*")):
        try:
            begun += load_newest(folder, warn=faults.append) is not None
        except RunError as error:
            faults.append(str(error))
    if left := leftovers(run):
        faults.append(f"left half-written: {', '.join(left)}")
    make_room()
    again = start(case.words(run), log=case.folder / "log").wait()
    if again.code != 0:
        faults.append(f"could not go on: exit code {again.code}: {again.said.strip()[-400:]}")
    elif differences := different(case.whole, fingerprint(run)):
        faults.append(f"another result: {', '.join(differences[:6])}")
    return Level(room, ended.code == 1, begun, "; ".join(faults))


def torture(folder: Path, *, levels: int, mounted: bool) -> list[Level]:
    """All levels, from no room at all upwards."""
    case = prepare(SCENARIOS["all of a recipe"], folder)
    begun = stopped_run(case)
    rest = max(used_bytes(case.folder / "whole") - used_bytes(begun), 1)
    one = on_tmpfs if mounted else on_counted_bytes
    found = []
    for number in range(levels):
        found.append(one(case, begun, rest * number // levels))
        print(f"level {number}: {found[-1]}", file=sys.stderr, flush=True)
    return found


def table(found: list[Level]) -> str:
    """The results in Markdown."""
    lines = ["| room left | the disk got full | trainings with a checkpoint, all load | fault |", "|---:|---|---:|---|"]
    for level in found:
        full = "yes" if level.refused else "no"
        lines.append(f"| {level.room_bytes / 1024:.0f} KiB | {full} | {level.begun} | {level.fault or 'none'} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=int, default=20)
    parser.add_argument("--without-mount", action="store_true", help="count bytes instead of mounting a tmpfs")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside and not options.without_mount:
        if can_mount():
            words = ["unshare", "--mount", "--map-root-user", sys.executable, __file__, "--inside"]
            os.execvp(words[0], [*words, "--levels", str(options.levels)])
        print("no tmpfs can be mounted here: bytes are counted instead", file=sys.stderr)
    begun = time.monotonic()
    with TemporaryDirectory() as place:
        found = torture(Path(place) / "disk-test", levels=options.levels, mounted=options.inside)
    how = "a tmpfs" if options.inside else "counted bytes"
    seconds = time.monotonic() - begun
    print(f"`python benchmarks/survival/full_disk.py --levels {options.levels}` ({how}, {seconds:.0f} s)\n")
    print(table(found))
    full = sum(level.refused for level in found)
    print(f"\nThe disk got full at {full} of {len(found)} levels.")
    return 1 if any(level.fault for level in found) or full < len(found) // 2 else 0


if __name__ == "__main__":
    sys.exit(main())
