"""`--help` fits on a page and says what matters for the recipe; what it leaves out can be given all the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from twostage.config.load import dump_recipe, load_recipe
from twostage_pipelines.cli import verbs
from twostage_pipelines.cli.main import main, parse

WIDTH, MOST_LINES = 120, 60
SOUND = ("--recordings.", "--audio.", "--wavenet-decoder.", "--wavenet-prior.", "sampled-items")
IMAGES = ("--stage1.", "--vimco.", "--prior.", "image-size", "binarise", "latent-dim", "search-")


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Prints help in a terminal of `WIDTH` columns and gives its text."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))

    def show(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
        return capsys.readouterr().out

    return show


def run_of(recipe: str, folder: Path) -> str:
    (folder / "config.toml").write_text(dump_recipe(load_recipe(recipe)), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("verb", verbs.VERBS)
@pytest.mark.parametrize("recipe", ["", "mnist", "vctk"])
def test_help_fits_on_a_page(verb: str, recipe: str, helped: Callable[..., str], tmp_path: Path) -> None:
    takes_recipe = verb in ("train", "train-codebook", "compare")
    first = [] if not recipe else [recipe] if takes_recipe else [run_of(recipe, tmp_path)]
    lines = helped(verb, *first, "--help").splitlines()
    assert sum(max(1, -(-len(line) // WIDTH)) for line in lines) <= MOST_LINES


@pytest.mark.parametrize("verb", ["train", "train-codebook", "compare"])
def test_help_of_a_recipe_has_what_its_kind_of_data_reads(verb: str, helped: Callable[..., str]) -> None:
    sound, images, neither = helped(verb, "vowels", "--help"), helped(verb, "mnist", "-h"), helped(verb, "--help")
    for flag in IMAGES:
        assert flag not in sound
        assert verb == "train-codebook" or flag in images or flag in ("search-", "latent-dim")
    assert not any(flag in images for flag in SOUND)
    assert "--audio." in sound
    assert "--audio." in neither
    assert "--stage1." in neither
    assert "=".join(("channels", str(load_recipe("mnist").stage1.channels))) in images
    everything = helped(verb, "vowels", "--help-all")
    assert all(flag in everything for flag in (*SOUND, *IMAGES))


def test_help_of_a_run_has_what_its_kind_of_data_reads(helped: Callable[..., str], tmp_path: Path) -> None:
    assert "--speaker" in helped("generate", "--help")
    assert "--speaker" not in helped("generate", run_of("mnist", tmp_path), "--help")
    assert "--keep-rows INT" in helped("generate", str(tmp_path), "--help")
    assert "--keep-rows INT" not in helped("generate", run_of("vowels", tmp_path), "--help")
    evaluation = helped("evaluate", str(tmp_path), "--help")
    assert "--evaluation.sampled-items INT" in evaluation
    assert "search" not in evaluation
    assert "search-items" in helped("evaluate", str(tmp_path), "--help-all")


def test_a_stage_shows_its_own_sections_and_names_the_others(helped: Callable[..., str]) -> None:
    shown = helped("train-codebook", "mnist", "--help")
    assert "--quantiser.*  kind" in " ".join(shown.split()).replace("--quantiser.* kind", "--quantiser.*  kind")
    assert "--prior-training.*" in shown
    assert "--prior-training.*   " not in shown


def test_flags_that_help_leaves_out_still_work() -> None:
    command = parse("train-codebook", ["mnist", "--prior.layers", "3", "--quantiser.auxiliary-weight", "0"])
    assert command.recipe.prior.layers == 3
    assert type(command.recipe) is type(load_recipe("mnist"))


@pytest.mark.parametrize("verb", ["train", "train-prior", "generate"])
def test_help_of_what_cannot_be_read_is_that_of_all_data(verb: str, helped: Callable[..., str]) -> None:
    assert helped(verb, "nowhere", "--help") == helped(verb, "--help")
