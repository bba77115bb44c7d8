"""SIGINT, SIGTERM and a double SIGINT in every phase of the work: exit code, sentence, nothing half-written, resume.

    python benchmarks/survival/stopped_runs.py --rounds 3

A phase is a function of the product. The command runs in a process of its own (`torture_runs`); where it reaches that
function it leaves a mark and waits a moment, in which the signal comes from outside; the second SIGINT follows after a
seeded 0 to 30 ms, hence also while the first is being dealt with. Expected are exit code 130 (SIGINT) or 143 (SIGTERM),
no traceback, after a single signal also a sentence that says how to go on and no unfinished file, and that the same
command, given again, ends with what the undisturbed one made, byte for byte.
"""

import argparse
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torture_recipes import CODEBOOK, Scenario
from torture_runs import PATIENCE_SECONDS, Case, different, fingerprint, leftovers, prepare, start

WAIT_SECONDS = 0.25


@dataclass(frozen=True)
class Phase:
    """Where a signal is to hit."""

    scenario: Scenario
    module: str
    owner: str
    """Class inside the module, or empty."""
    function: str
    call: int = 1
    """Which call of it, from 1."""

    def place(self, mark: Path) -> None:
        """Make this process leave the mark and wait where it comes to the phase."""
        holder = import_module(self.module)
        holder = getattr(holder, self.owner) if self.owner else holder
        real: Callable[..., Any] = getattr(holder, self.function)
        calls = 0

        def waiting(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == self.call:
                mark.touch()
                end = time.monotonic() + WAIT_SECONDS
                while (left := end - time.monotonic()) > 0:
                    time.sleep(left)
            return real(*arguments, **options)

        setattr(holder, self.function, waiting)


_PRIOR = "train-prior RUN"
PHASES = {
    "loading": Phase(Scenario("images", (), CODEBOOK), "twostage_pipelines.train.train", "", "load_data"),
    "k-means": Phase(Scenario("images", (), CODEBOOK), "stage1_vqvae.quantiser.codebook", "", "kmeans"),
    "training": Phase(Scenario("images", (), CODEBOOK), "twostage.training.loop", "Fit", "train_step", call=12),
    "validation": Phase(Scenario("images", (), CODEBOOK), "twostage.training.loop", "Fit", "validate", call=2),
    "evaluation": Phase(
        Scenario("images", (CODEBOOK,), "evaluate RUN"),
        "twostage_pipelines.evaluate.score",
        "",
        "distortion_bits",
    ),
    "code extraction": Phase(
        Scenario("images", (CODEBOOK,), _PRIOR), "twostage_pipelines.runs.codes", "", "encode_split", call=2
    ),
    "sampling": Phase(
        Scenario("images", (CODEBOOK, _PRIOR), "generate RUN --count 4"),
        "twostage_pipelines.generate.drawing",
        "",
        "sample",
    ),
    "writing a checkpoint": Phase(
        Scenario("images", (CODEBOOK,), _PRIOR), "twostage.storage.atomic", "", "publish_directory", call=2
    ),
    "writing files": Phase(
        Scenario("images", (CODEBOOK, _PRIOR), "generate RUN --count 4"),
        "twostage.storage.atomic",
        "",
        "_write_synced",
        call=3,
    ),
    "report": Phase(
        Scenario("images", (CODEBOOK, "evaluate RUN"), "report RUN"), "twostage_pipelines.media.figures", "", "curves"
    ),
}
SIGNALS: dict[str, tuple[int, ...]] = {
    "SIGINT": (signal.SIGINT,),
    "SIGTERM": (signal.SIGTERM,),
    "double SIGINT": (signal.SIGINT, signal.SIGINT),
}


def one_point(phase: Phase, case: Case, numbers: Sequence[int], pause_seconds: float) -> str:
    """Send the signals in that phase and give the command again; returns what went wrong."""
    run, log, mark = case.fresh_run("stopped"), case.folder / "log", case.folder / "mark"
    mark.unlink(missing_ok=True)
    started = start(case.words(run), log=log, inside=lambda: phase.place(mark))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not mark.exists():
        if time.monotonic() > deadline or not started.runs():
            return f"the phase was never reached: {started.wait().said.strip()[-400:]}"
        time.sleep(0.002)
    for number in numbers:
        started.send(number)
        time.sleep(pause_seconds)
    ended, wanted = started.wait(), 128 + numbers[0]
    if ended.code != wanted:
        return f"exit code {ended.code}, not {wanted}: {ended.said.strip()[-400:]}"
    if "Traceback" in ended.said:
        return f"a traceback: {ended.said.strip()[-400:]}"
    if len(numbers) == 1:
        if "same command again" not in ended.said:
            return f"no sentence on how to go on: {ended.said.strip()[-400:]}"
        if left := leftovers(run):
            return f"left half-written: {', '.join(left)}"
    again = start(case.words(run), log=log).wait()
    if again.code != 0:
        return f"could not go on: exit code {again.code}: {again.said.strip()[-400:]}"
    differences = different(case.whole, fingerprint(run))
    return f"another result: {', '.join(differences[:6])}" if differences else ""


def torture(
    folder: Path,
    *,
    names: Sequence[str],
    rounds: int,
    seed: int,
    kinds: Mapping[str, tuple[int, ...]] = SIGNALS,
    say: Callable[[str], None] = lambda _: None,
) -> dict[tuple[str, str], list[str]]:
    """What went wrong by phase and signal; an empty text for every point that went well."""
    found: dict[tuple[str, str], list[str]] = {}
    cases: dict[Scenario, Case] = {}
    for name in names:
        scenario = PHASES[name].scenario
        if scenario not in cases:
            cases[scenario] = prepare(scenario, folder / str(len(cases)))
        case = cases[scenario]
        for kind, numbers in kinds.items():
            draw = random.Random(f"{seed} {name} {kind}")
            found[name, kind] = [one_point(PHASES[name], case, numbers, draw.uniform(0, 0.03)) for _ in range(rounds)]
            for fault in filter(None, found[name, kind]):
                say(f"{name}, {kind}: {fault}")
            say(f"{name}, {kind}: {len(found[name, kind])} points")
    return found


def table(found: dict[tuple[str, str], list[str]]) -> str:
    """The results in Markdown: points that went well of those tried."""
    lines = [f"| phase | {' | '.join(SIGNALS)} |", f"|---|{'---:|' * len(SIGNALS)}"]
    for name in dict.fromkeys(name for name, _ in found):
        cells = [f"{found[name, kind].count('')}/{len(found[name, kind])}" for kind in SIGNALS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="points per phase and signal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the runs are written, removed afterwards")
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as place:
        found = torture(
            Path(place), names=list(PHASES), rounds=options.rounds, seed=options.seed,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
    print(f"`python benchmarks/survival/stopped_runs.py --rounds {options.rounds} --seed {options.seed}`\n")
    print(table(found))
    return 1 if any(fault for faults in found.values() for fault in faults) else 0


if __name__ == "__main__":
    sys.exit(main())
