"""In how many files of this project a function runs while a command does its work: the length of a reader's way.

    python benchmarks/studies/files_of_a_verb.py train-codebook digits --out /tmp/run --codebook-training.steps 40

What runs on import (a module's or a class's own level, and what they call) does not count. Output of the command goes
where it always goes; the files are listed behind it.
"""

import sys
import threading
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import FrameType
from typing import Any

from twostage_pipelines.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("twostage", "stage1_vqvae", "stage2_prior", "pipelines")


def importing(frame: FrameType | None) -> bool:
    """Whether a module of this project is being imported somewhere above."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            return True
        frame = frame.f_back
    return False


def trace(arguments: list[str]) -> tuple[int, list[str]]:
    """Exit code of a command, and the files in which a function ran, by name."""
    seen: set[str] = set()

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & CO_OPTIMIZED and code.co_filename not in seen and not importing(frame):
            seen.add(code.co_filename)

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        code = main(arguments)
    finally:
        sys.setprofile(None)
    paths = [Path(name).resolve() for name in seen]
    own = (path.relative_to(ROOT) for path in paths if path.is_relative_to(ROOT))
    return code, sorted(str(path) for path in own if path.parts[0] in PACKAGES)


if __name__ == "__main__":
    exit_code, files = trace(sys.argv[1:])
    print("\n".join(files))
    print(f"{len(files)} files of {', '.join(PACKAGES)} in {' '.join(sys.argv[1:2])}")
    sys.exit(exit_code)
