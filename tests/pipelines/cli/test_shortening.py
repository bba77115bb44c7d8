"""Fewer steps than the recipe's warm-up: the warm-up is shortened with them, in a line, unless it was asked for."""

from pathlib import Path

import pytest

from twostage.errors import UsageError
from twostage_pipelines.cli.main import main, parse

RECIPE = """
name = "short"
models = ["vq-vae"]
[data]
name = "{data}"
[codebook_training]
warmup_steps = 100
patience = 3
[decoder_training]
warmup_steps = 100
[prior_training]
warmup_steps = 100
[baseline_training]
warmup_steps = 100
schedule = "cosine"
"""
SOUND = ("codebook_training", "decoder_training", "prior_training", "baseline_training")
IMAGES = ("codebook_training", "prior_training", "baseline_training")


@pytest.fixture(params=["digits", "vowels"])
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    text = RECIPE.format(data=request.param)
    path = tmp_path / "short.toml"
    path.write_text(text if request.param == "vowels" else text.replace("[decoder_training]\nwarmup_steps = 100\n", ""))
    return path


def test_a_warm_up_follows_fewer_steps_and_a_line_says_so(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for section in SOUND if "vowels" in recipe.read_text() else IMAGES:
        flag = f"--{section.replace('_', '-')}"
        command = parse("train", [str(recipe), f"{flag}.steps", "40"])
        training = getattr(command.recipe, section)
        assert (training.steps, training.warmup_steps) == (40, 40)
        said = capsys.readouterr().err
        assert f"{section}.warmup_steps is 40 instead of the recipe's 100, because {section}.steps is 40" in said
        # Of an impatient training, the first validation too.
        assert training.validate_every == (40 if training.patience else 500)
        assert len(said.splitlines()) == (2 if training.patience else 1)
        # What fits is left alone, without a word.
        assert getattr(parse("train", [str(recipe), f"{flag}.steps", "600"]).recipe, section).warmup_steps == 100
        assert capsys.readouterr().err == ""


def test_nothing_is_said_of_a_warm_up_that_the_dial_will_choose(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parse("train", [str(recipe), "--prior-training.steps", "40", "--size", "small"])
    assert capsys.readouterr().err == ""
    with pytest.raises(UsageError, match="but is 100"):
        parse("train", [str(recipe), "--size=small", "--prior-training.steps=40", "--prior-training.warmup-steps=100"])


def test_a_warm_up_that_was_asked_for_is_not_shortened(recipe: Path) -> None:
    for how in (["--prior-training.warmup-steps", "100"], ["--prior_training.warmup_steps=100"]):
        with pytest.raises(UsageError, match=r"prior_training.warmup_steps must be at most .* \(40\), but is 100"):
            parse("train", [str(recipe), "--prior-training.steps", "40", *how])


def test_comparisons_shorten_the_baselines_to_what_codebook_and_prior_take(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text(RECIPE.format(data="digits").replace("[decoder_training]\nwarmup_steps = 100\n", ""))
    recipe = parse("compare", [str(path), "--codebook-training.steps", "30", "--prior-training.steps", "20"]).recipe
    found = [(getattr(recipe, section).steps, getattr(recipe, section).warmup_steps) for section in IMAGES]
    assert found == [(30, 30), (20, 20), (50, 50)]


def test_the_same_command_again_finds_no_other_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "short.toml"
    path.write_text(RECIPE.format(data="digits").replace("[decoder_training]\nwarmup_steps = 100\n", ""))
    small = ["--stage1.channels", "8", "--stage1.residual-blocks", "0", "--quantiser.codebook-size", "8"]
    command = ["train-codebook", str(path), *small, "--codebook-training.steps", "3", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    assert main(command) == 0
    assert "already trained" in capsys.readouterr().err
    # The run has the shortened one as its own, and its prior starts from the recipe's.
    prior = ["train-prior", str(tmp_path / "run"), "--prior.layers", "2", "--prior-training.steps", "2"]
    assert main([*prior, "--dry-run"]) == 0
    assert "prior_training.warmup_steps is 2 instead" in capsys.readouterr().err
    for verb, section in (("train-prior", "prior"), ("train-baseline", "baseline")):
        assert main([verb, str(tmp_path / "run"), f"--{section}-training.steps", "0"]) == 2
        assert f"{section}_training.steps must be at least 1" in capsys.readouterr().err
