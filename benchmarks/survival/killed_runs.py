"""`kill -9` at seeded random moments, then the same command again: is the run lost, or the result another one?

    python benchmarks/survival/killed_runs.py --count 200

Every point starts the real command on a fresh run folder, kills its process with SIGKILL after a share, drawn by seed
and number, of the time that the undisturbed command took, and gives the same command again until it ends by itself
(once, unless `--again` kills the continuation too). The run is lost if the command then fails, and another one if a
file differs from the undisturbed run's: weights, Adam, EMA statistics, counts, weight average, metrics, codes,
recipe, and the state but for its seconds (`torture_runs.fingerprint`).

The processes are forks of one that has imported torch (see `torture_runs`), which makes a point cost about a second;
`--fresh` more of them start an interpreter of their own. A kill takes the process, not the machine: it shows the order
of writes and renames, not what a power failure leaves of unflushed ones.

The control saves as scripts usually do, over the same three files, with neither temporary name nor manifest, after
every step of a network large enough that writing takes a fair part of the time; and the product saves after every
step of the same network, killed at the same moments.
"""

import argparse
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torture_runs
from plain_checkpoints import save_plainly
from torture_recipes import SCENARIOS, Scenario
from torture_runs import FRESH, Case, Ended, different, fingerprint, leftovers, prepare, start

LARGER = (
    "--stage1.channels 96 --stage1.residual-channels 96 --codebook-training.checkpoint-every 1 "
    "--codebook-training.steps 16 --codebook-training.batch-size 2"
)
EVERY_STEP = Scenario("images", (), f"train-codebook RECIPE --out RUN {LARGER}")


@dataclass
class Result:
    """What became of the killed runs of one kind."""

    name: str
    kills: int = 0
    lost: int = 0
    """The same command did not come to its end."""
    different: int = 0
    """It did, with another result."""
    stale: int = 0
    """Runs in which an unfinished file of the killed process still lies."""
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.lost and not self.different


def one_point(
    case: Case,
    share: random.Random,
    *,
    again: int = 0,
    launcher: Sequence[str] = (),
    inside: Callable[[], object] = lambda: None,
) -> tuple[int, str]:
    """Kill one run (and `again` times its continuation), then let it end; returns the kills and what went wrong."""
    run, log, kills = case.fresh_run("killed"), case.folder / "log", 0
    while True:
        started = start(case.words(run), log=log, launcher=launcher, inside=inside)
        if kills <= again:
            time.sleep(share.uniform(0.02, 1.0) * case.seconds)
            kills += started.send(signal.SIGKILL)
        ended: Ended = started.wait()
        if ended.code != -signal.SIGKILL:
            break
    if ended.code != 0:
        return kills, f"lost: exit code {ended.code}: {ended.said.strip()[-400:]}"
    differences = different(case.whole, fingerprint(run))
    return kills, f"different: {', '.join(differences[:6])}" if differences else ""


def torture(
    name: str,
    scenario: Scenario,
    folder: Path,
    *,
    count: int,
    seed: int,
    again: int = 0,
    launcher: Sequence[str] = (),
    inside: Callable[[], object] = lambda: None,
) -> Result:
    """Kill runs of one scenario until `count` kills have hit."""
    result, begun = Result(name), time.monotonic()
    case, number = prepare(scenario, folder), 0
    if launcher:
        case = torture_runs.timed(case, launcher)
    while result.kills < count:
        kills, fault = one_point(
            case, random.Random(f"{seed} {name} {number}"), again=again, launcher=launcher, inside=inside
        )
        result.kills, number = result.kills + kills, number + 1
        result.lost += fault.startswith("lost")
        result.different += fault.startswith("different")
        result.stale += bool(leftovers(case.folder / "killed"))
        if fault:
            result.faults.append(f"{name}, point {number - 1}: {fault}")
    result.seconds = time.monotonic() - begun
    return result


def shares(count: int, parts: int) -> list[int]:
    """`count` points over `parts` scenarios, as evenly as they go."""
    return [count // parts + (part < count % parts) for part in range(parts)]


def table(results: Sequence[Result], control: Result | None) -> str:
    """The results in Markdown."""
    lines = ["| killed | kills | lost | another result | seconds |", "|---|---:|---:|---:|---:|"]
    for result in [*results, *([control] if control else [])]:
        lines.append(f"| {result.name} | {result.kills} | {result.lost} | {result.different} | {result.seconds:.0f} |")
    kills = sum(result.kills for result in results)
    bad = sum(result.lost + result.different for result in results)
    stale = sum(result.stale for result in results)
    lines += ["", f"{kills} kills, {bad} runs lost or different; {stale} runs with an unfinished file left over."]
    if control is not None:
        lines.append(
            f"The plain save lost or changed {control.lost + control.different} of {control.kills} killed runs."
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="kills of the product, all scenarios together")
    parser.add_argument("--control", type=int, default=20, help="kills of the plain save and of its counterpart")
    parser.add_argument("--fresh", type=int, default=4, help="kills of a command in an interpreter of its own")
    parser.add_argument("--again", type=int, default=0, help="how often the continuation is killed as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the runs are written, removed afterwards")
    options = parser.parse_args()
    results: list[Result] = []
    with TemporaryDirectory(dir=options.folder) as place:
        folder, common = Path(place), {"seed": options.seed}
        counts = shares(options.count - options.control - options.fresh, len(SCENARIOS))
        for number, (name, scenario) in enumerate(SCENARIOS.items()):
            _note(
                results,
                torture(name, scenario, folder / str(number), count=counts[number], again=options.again, **common),
            )
        fresh: dict[str, Any] = {"count": options.fresh, "launcher": FRESH}
        _note(
            results, torture("own interpreter", SCENARIOS["image codebook (EMA)"], folder / "fresh", **fresh, **common)
        )
        _note(
            results, torture("saving after every step", EVERY_STEP, folder / "every", count=options.control, **common)
        )
        control = torture(
            "plain save after every step (control)", EVERY_STEP, folder / "plain", count=options.control,
            inside=save_plainly, **common,
        )  # fmt: skip
    print(f"`python benchmarks/survival/killed_runs.py --count {options.count} --seed {options.seed}`\n")
    print(table(results, control))
    # A control that loses nothing shows that the moments miss the writes.
    return 0 if all(result.passed for result in results) and not control.passed else 1


def _note(results: list[Result], result: Result) -> None:
    results.append(result)
    print(f"{result.name}: {result.kills} kills, {result.seconds:.0f} s", *result.faults, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
