"""Resume at seeded random steps, every stage of images and sound: is everything equal, bit for bit?

    python benchmarks/survival/resumed_steps.py --count 240

Every point runs a training verb with a signal to itself in a random step, so that it stops as it does after Ctrl-C,
then gives the same command again. Compared by SHA-256 with the uninterrupted run are weights, Adam's moments, EMA
statistics and counts, the weight average, the best model, metrics, codes, the state but for its seconds, torch's random
generator after the last step, and what the result makes: samples, or reconstructions where nothing can be drawn.

All points run in this one process through the command line's own function; `killed_runs` ends real processes.
"""

import argparse
import hashlib
import io
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torture_recipes import SCENARIOS, STEPS, Scenario, write_recipe
from torture_runs import different, fingerprint

from twostage.training.loop import Fit
from twostage_pipelines.cli import main as cli

GENERATOR = "random generator"
TRAININGS = {name: scenario for name, scenario in SCENARIOS.items() if scenario.samples}


@dataclass
class Result:
    """What became of the points of one training."""

    name: str
    points: int = 0
    seconds: float = 0.0
    compared: int = 0
    """Files of one run, with the generator."""
    faults: list[str] = field(default_factory=list)


@contextmanager
def stopping_at(step: int) -> Iterator[None]:
    """A signal to this process at the beginning of training step `step`, from 0."""
    real = Fit.train_step

    def train_step(fit: Fit) -> dict[str, float]:
        if fit.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return real(fit)

    Fit.train_step = train_step  # type: ignore[method-assign]
    try:
        yield
    finally:
        Fit.train_step = real  # type: ignore[method-assign]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what a signal handler writes, which goes past `sys.stderr`."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def command(words: list[str], *, code: int = 0) -> None:
    """Run the command line in this process; raises RuntimeError for another exit code."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said, quiet():
        ended = cli.main(words)
    if ended != code:
        raise RuntimeError(f"{' '.join(words)}: exit code {ended}, not {code}: {said.getvalue().strip()[-400:]}")


class Training:
    """A training verb on a tiny run, with the digests of its uninterrupted run."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        folder.mkdir()
        self.scenario, self.folder = scenario, folder
        self.recipe, self.base = write_recipe(scenario.kind, folder), folder / "base"
        for before in scenario.before:
            command(scenario.words(before, self.recipe, self.base))
        self.whole = self.digests(self._copy("whole"))

    def _copy(self, name: str) -> Path:
        run = self.folder / name
        shutil.rmtree(run, ignore_errors=True)
        if self.base.is_dir():
            shutil.copytree(self.base, run)
        return run

    def digests(self, run: Path) -> dict[str, str]:
        """Run the verb to its end and make something of the result."""
        command(self.scenario.words(self.scenario.command, self.recipe, run))
        generator = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
        command(self.scenario.words(self.scenario.samples, self.recipe, run))
        return {**fingerprint(run), GENERATOR: generator}

    def point(self, step: int) -> list[str]:
        """What differs after a stop in that step."""
        run = self._copy("parts")
        torch.manual_seed(step)  # nothing may hang on where the generator stood
        with stopping_at(step):
            command(self.scenario.words(self.scenario.command, self.recipe, run), code=130)
        torch.manual_seed(step + 1000)
        differences = different(self.whole, self.digests(run))
        # After the last step nothing is left to do, and nothing is drawn.
        return [path for path in differences if step < STEPS - 1 or path != GENERATOR]


def torture(name: str, scenario: Scenario, folder: Path, *, count: int, seed: int) -> Result:
    """Stop and resume `count` times."""
    begun, draw = time.monotonic(), random.Random(f"{seed} {name}")
    training = Training(scenario, folder)
    result = Result(name, compared=len(training.whole))
    steps = list(range(STEPS))
    draw.shuffle(steps)
    for number in range(count):  # every step once before any comes again
        step = steps[number % STEPS]
        differences = training.point(step)
        result.points += 1
        if differences:
            result.faults.append(f"{name}, step {step}: {', '.join(differences[:6])}")
    result.seconds = time.monotonic() - begun
    return result


def table(results: list[Result]) -> str:
    """The results in Markdown."""
    lines = ["| training | points | digests each | not equal | seconds |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {r.name} | {r.points} | {r.compared} | {len(r.faults)} | {r.seconds:.0f} |" for r in results]
    points, faults = sum(r.points for r in results), sum(len(r.faults) for r in results)
    return "\n".join([*lines, "", f"{points} points, {faults} not equal."])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=240, help="points, all trainings together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the runs are written, removed afterwards")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    each = -(-options.count // len(TRAININGS))
    with TemporaryDirectory(dir=options.folder) as place:
        for number, (name, scenario) in enumerate(TRAININGS.items()):
            result = torture(name, scenario, Path(place) / str(number), count=each, seed=options.seed)
            results.append(result)
            print(f"{name}: {result.points} points, {result.seconds:.0f} s", *result.faults, sep="\n", file=sys.stderr)
    print(f"`python benchmarks/survival/resumed_steps.py --count {options.count} --seed {options.seed}`\n")
    print(table(results))
    return 1 if any(result.faults for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
