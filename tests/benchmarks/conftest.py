"""Benchmarks are scripts: run from their own folder, which tests have to put on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
