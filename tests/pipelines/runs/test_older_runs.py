"""Runs that were recorded before some settings existed: the default of each is what was done before it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from twostage.storage.checkpoint import load_newest, save_checkpoint, step_name
from twostage_pipelines.cli.main import main

SMALL = "--stage1.channels 8 --stage1.head-channels 8 --stage1.residual-blocks 0 --prior.layers 1 --prior.channels 8"
STEPS = " ".join(f"--{each}-training.steps 2 --{each}-training.warmup-steps 0" for each in ("codebook", "prior"))
LATER = {
    "stage1": ("hierarchy", "upsampling", "normalisation", "attention_blocks"),
    "quantiser": ("rate_weight",),
    "training": ("weight_ema", "patience"),
}
"""Settings that are taken out of a record; of a prior those of its training alone."""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose records lack the settings."""
    run = tmp_path_factory.mktemp("older") / "run"
    assert main(["train-codebook", "digits", *SMALL.split(), *STEPS.split(), "--out", str(run)]) == 0
    assert main(["train-prior", str(run)]) == 0
    for stage in ("stage1", "prior"):
        folder = run / "models" / "vq-vae" / stage
        found = load_newest(folder, warn=pytest.fail)
        assert found is not None
        record = found.state["record"]
        config: dict[str, Any] = {
            section: {key: value for key, value in values.items() if key not in LATER.get(section, ())}
            if isinstance(values, dict)
            else values
            for section, values in record["config"].items()
        }
        assert config != record["config"]
        state = {**found.state, "record": {**record, "config": config}}
        save_checkpoint(folder / step_name(state["step"]), tensors=found.tensors, state=state)
    return run


Again = Callable[..., tuple[int, str]]


@pytest.fixture
def again(older: Path, capsys: pytest.CaptureFixture[str]) -> Again:
    """The first command once more, with other flags: its exit code and what it said."""

    def run(*flags: str) -> tuple[int, str]:
        code = main(["train-codebook", "digits", *SMALL.split(), *STEPS.split(), "--out", str(older), *flags])
        return code, capsys.readouterr().err

    return run


def test_a_setting_with_its_default_is_the_same_setting(again: Again, older: Path) -> None:
    code, said = again()
    assert (code, "already trained" in said) == (0, True), said
    assert main(["train-prior", str(older)]) == 0


def test_another_value_is_refused_beside_the_default(again: Again) -> None:
    code, said = again("--stage1.upsampling", "subpixel")
    assert code == 2
    assert "(stage1.upsampling: transposed -> subpixel)" in said


def test_more_steps_extend_such_a_run(again: Again) -> None:
    code, said = again("--codebook-training.steps", "3")
    assert code == 2
    assert "(training.steps: 2 -> 3)" in said
    assert "add --extend" in said
