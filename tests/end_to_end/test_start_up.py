"""What commands import: heavy modules cost seconds before anything is done, so verbs that need none import none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch._dynamo", "sympy", "matplotlib")
_TINY = {
    "digits": ["--stage1.channels", "8", "--stage1.residual-channels", "4", "--stage1.head-channels", "8"],
    "vowels": ["--audio.channels", "8", "--audio.residual-channels", "4"],
}
_STEPS = ["steps", "2", "warmup-steps", "0", "batch-size", "8"]


def _imported(*commands: list[str]) -> list[set[str]]:
    """Which heavy modules were imported by the end of each command, all in one process of their own."""
    program = f"""if True:
        import json, sys
        from twostage_pipelines.cli.main import main
        found = []
        for command in json.loads(sys.argv[1]):
            assert main(command) == 0, command
            found.append(sorted(sys.modules.keys() & set({HEAVY})))
        print("\\n" + json.dumps(found))
    """
    command = [sys.executable, "-c", program, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [set(modules) for modules in json.loads(done.stdout.splitlines()[-1])]


def _short(section: str) -> list[str]:
    pairs = zip(_STEPS[::2], _STEPS[1::2], strict=True)
    return [word for key, value in pairs for word in (f"--{section}.{key}", value)]


@pytest.mark.parametrize("recipe", _TINY)
def test_training_does_not_import_what_draws(recipe: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    codebook = ["train-codebook", recipe, *_TINY[recipe], *_short("codebook-training"), "--out", run]
    prior = ["train-prior", run, *_short("prior-training")]
    found = _imported(codebook, prior)
    assert not any("matplotlib" in modules for modules in found)
    generate = ["generate", run, "--count", "1"] + (["--seconds", "0.1"] if recipe == "vowels" else [])
    (modules,) = _imported(generate)
    # A sound comes with its picture, and a model of either without the compiler.
    assert modules == ({"matplotlib"} if recipe == "vowels" else set())
