"""Mutated checkpoints, manifests, code files and recipes: is each refused with a sentence, in bounded memory?

    python benchmarks/survival/mutated_files.py --count 1000

Every file is mutated `--count` times per kind, by a seeded choice of flipped bits, overwritten, removed, inserted and
repeated bytes, truncation, and edits of its structure (a JSON value, a TOML line, a number in a tensor's header) that
keep the format. What is to happen to a mutated file:

- refused: a `TwoStageError` whose sentence is one printable line;
- fell back: the previous checkpoint was used, with a warning that names both;
- equal: it says the same as before (a changed comment, a space in a recipe).

The kinds with "sealed" are worse than damage: whoever mutated them made every digest right again, so a file may load as
something else, and only anything but a sentence or a whole load is a fault. A "bomb" is a small file built to
become large in memory. Each kind and each bomb is read in a process of its own, whose memory above that of reading the
whole files once must stay below the largest file plus 64 MiB.
"""

import argparse
import platform
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from memory_bombs import Bomb, bombs
from mutation_targets import KINDS, Target, targets
from mutations import mutate

from twostage.config.load import load_recipe
from twostage.errors import TwoStageError

ALLOWED_BYTES = 64 << 20
FAULTS = ("accepted", "escaped", "no sentence")
"""Loaded as something else, another error than a `TwoStageError`, a message of more than a line."""


@dataclass
class Result:
    """What became of the mutated files of one kind."""

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """Seed and what happened, of those that went wrong."""
    largest_bytes: int = 0
    memory_bytes: int = 0
    seconds: float = 0.0

    @property
    def mutations(self) -> int:
        return sum(self.outcomes.values())

    @property
    def passed(self) -> bool:
        return not self.faults and self.memory_bytes <= self.largest_bytes + ALLOWED_BYTES


def run_kind(kind: str, count: int, seed: int, folder: Path) -> Result:
    """Mutate and read the files of a kind `count` times."""
    result, begun = Result(kind), time.monotonic()
    files = targets(kind, folder)
    for target in files:
        assert target.read() == "equal", target.path
    baseline = peak_bytes()
    for number in range(count):
        _one(result, files[number % len(files)], f"{kind} {seed} {number}")
    result.memory_bytes = peak_bytes() - baseline
    result.seconds = time.monotonic() - begun
    return result


def run_bomb(bomb: Bomb) -> Result:
    """Read one of the small files that become large."""
    result, begun = Result(f"bomb: {bomb.path.name}", largest_bytes=bomb.size), time.monotonic()
    load_recipe("digits")  # whatever reading anything takes is in memory before
    baseline = peak_bytes()
    _note(result, bomb.path.name, _outcome(bomb.read))
    result.memory_bytes, result.seconds = peak_bytes() - baseline, time.monotonic() - begun
    return result


def _one(result: Result, target: Target, seed: str) -> None:
    """One mutation; the file is whole again afterwards."""
    way, data = mutate(target.whole, target.edits, random.Random(seed))
    result.largest_bytes = max(result.largest_bytes, len(data))
    sealed = target.write(data)
    outcome = _outcome(target.read)
    if outcome == "accepted" and sealed:
        outcome = "another whole file"
    _note(result, f"{seed} ({way}, {target.path.name})", outcome)
    target.restore()


def _outcome(read: Callable[[], str]) -> str:
    try:
        return read()
    except TwoStageError as error:
        text = str(error)
        return "refused" if text.isprintable() and 20 < len(text) < 2000 else f"no sentence: {text[:200]!r}"
    except BaseException as error:  # also a panic of a parser written in Rust, which is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"escaped: {type(error).__name__}: {str(error)[:200]!r}"


def _note(result: Result, what: str, outcome: str) -> None:
    name = outcome.partition(":")[0]
    result.outcomes[name] += 1
    if name in FAULTS:
        result.faults.append(f"{what}: {outcome}")


def peak_bytes() -> int:
    """Most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def table(results: list[Result], *, count: int, seed: int) -> str:
    """The results in Markdown."""
    lines = [
        f"`python benchmarks/survival/mutated_files.py --count {count} --seed {seed}`, "
        f"Python {platform.python_version()}, safetensors {version('safetensors')}.",
        "",
        "| kind | mutations | outcomes | faults | largest file | memory above reading the whole files | seconds |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for result in results:
        outcomes = ", ".join(f"{name} {number}" for name, number in result.outcomes.most_common())
        lines.append(
            f"| {result.kind} | {result.mutations} | {outcomes} | {len(result.faults)} | "
            f"{result.largest_bytes / 1024:.0f} KiB | {result.memory_bytes / 2**20:.1f} MiB"
            f"{'' if result.passed else ' (failed)'} | {result.seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="mutations per kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    results = []
    # Forked, because importing torch takes longer than reading a hundred files.
    with TemporaryDirectory() as folder, get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for kind in KINDS:
            inside = Path(folder) / kind
            inside.mkdir()
            results.append(pool.apply(run_kind, (kind, arguments.count, arguments.seed, inside)))
        inside = Path(folder) / "bombs"
        inside.mkdir()
        results += [pool.apply(run_bomb, (bomb,)) for bomb in pool.apply(bombs, (inside,))]
    for result in results:
        for fault in result.faults[:20]:
            print(fault, file=sys.stderr)
    print(table(results, count=arguments.count, seed=arguments.seed))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
