"""Benchmarks are scripts: run from their own folders, which tests have to put on the path."""

import sys
from pathlib import Path

for folder in ("speed", "studies", "survival"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / folder))
