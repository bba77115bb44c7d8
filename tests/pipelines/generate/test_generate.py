"""`generate`: labels or none, and completions of an image, on runs with random weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twostage.errors import UsageError
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main
from twostage_pipelines.media.png import read_image, to_bytes

WriteRun = Callable[..., Path]


def _twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


# --- Labels ---


def test_a_prior_with_label_dropout_generates_without_labels(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(label_dropout=0.1)
    assert _twostage("generate", run, "--count", 4, "--unlabelled", "--out", tmp_path / "hidden") == 0
    assert set(_contents(tmp_path / "hidden")) == {"0000.png", "0001.png", "0002.png", "0003.png", "grid.png"}
    model = load_run(run)
    codes = model.sample_codes(4, labels=None)
    images = to_bytes(model.decode(codes).numpy(), 17)
    assert np.array_equal(_pixels(tmp_path / "hidden/0003.png"), images[3, 0])
    assert all(not torch.equal(codes, model.sample_codes(4, labels=label)) for label in range(3))
    assert _twostage("generate", run, "--count", 4, "--out", tmp_path / "shown") == 0
    assert {f"000{index}-class_{index % 3}.png" for index in range(4)} < set(_contents(tmp_path / "shown"))


def test_a_prior_that_knows_labels_only_says_how_to_do_without(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run()
    for dry in ([], ["--dry-run"]):
        assert _twostage("generate", run, "--unlabelled", *dry) == 2
        said = capsys.readouterr().err
        assert "label dropout" in said
        assert f"remove {run}/models/vq-vae/prior, run train-prior with --prior.label-dropout" in said
    with pytest.raises(UsageError, match="label_dropout above 0"):
        load_run(run).generate(2, labels=None)


@pytest.mark.parametrize("settings", [{"classes": 0}, {"conditional": False}, {"classes": 0, "label_dropout": 0.1}])
def test_a_prior_without_classes_takes_no_labels(
    write_run: WriteRun, tmp_path: Path, settings: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(**settings)
    assert load_run(run).pixelcnn.classes == ()
    for flags in ([], ["--unlabelled"]):
        out = tmp_path / f"out{len(flags)}"
        assert _twostage("generate", run, "--count", 2, "--out", out, *flags) == 0
        assert set(_contents(out)) == {"0000.png", "0001.png", "grid.png"}
    assert _twostage("generate", run, "--label", 0) == 2
    assert "its data have no labels" in capsys.readouterr().err
    model = load_run(run)
    assert torch.equal(model.generate(2), model.generate(2, labels=None))
    with pytest.raises(UsageError, match="this prior knows none"):
        model.generate(2, labels=[0, 1])


def test_labels_of_images_have_names_too(write_run: WriteRun) -> None:
    model = load_run(write_run(names=("cat", "dog")))
    assert torch.equal(model.generate(2, labels=["dog", "cat"]), model.generate(2, labels=[1, 0]))
    for strange in ("none", ["cat", "cow"]):
        with pytest.raises(UsageError, match="labels must be one of cat, dog, or its number from 0 to 1"):
            model.generate(2, labels=strange)


NUMBERED = tuple(str(number) for number in range(1, 13))


@pytest.mark.parametrize("model", ["vq-vae", "cvae"])
def test_a_label_is_a_name_before_it_is_a_number(
    write_run: WriteRun, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    generate = ["generate", write_run(names=NUMBERED), "--model", model, "--count", 1, "--label"]
    assert _twostage(*generate, 10, "--out", tmp_path / "ten") == 0
    assert set(_contents(tmp_path / "ten")) == {"0000-10.png", "grid.png"}
    assert _twostage(*generate, 0) == 2
    said = capsys.readouterr().err
    assert "--label must be one of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more, but is '0'" in said
    named = ["generate", write_run(name="named", names=("cat", "dog")), "--model", model, "--count", 1, "--label"]
    assert _twostage(*named, 1, "--out", tmp_path / "one") == 0
    assert set(_contents(tmp_path / "one")) == {"0000-dog.png", "grid.png"}
    assert _twostage(*named, 2) == 2
    assert "one of cat, dog, or its number from 0 to 1, but is '2'" in capsys.readouterr().err


def test_the_file_of_a_label_holds_that_label(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(names=NUMBERED)
    assert _twostage("generate", run, "--count", 2, "--label", 10, "--out", tmp_path / "out") == 0
    expected = to_bytes(load_run(run).generate(2, labels=NUMBERED.index("10")).numpy(), 17)
    assert np.array_equal(_pixels(tmp_path / "out/0001-10.png"), expected[1, 0])


@pytest.mark.parametrize("model", ["vq-vae", "cvae"])
def test_a_label_is_found_in_either_form_of_its_characters(
    write_run: WriteRun, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
    run = write_run(names=("a", one))
    for asked in (one, two):
        out = tmp_path / f"out {len(asked)}"
        assert _twostage("generate", run, "--model", model, "--count", 1, "--label", asked, "--out", out) == 0
        assert set(_contents(out)) == {f"0000-{one}.png", "grid.png"}
    assert _twostage("generate", run, "--model", model, "--label", "Cafe") == 2
    assert f"Did you mean {one}?" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["vq-vae", "cvae"])
def test_a_label_without_training_items_is_refused_and_left_out_in_turn(
    write_run: WriteRun, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(names=("a", "b", "c", "d"), trained=("a", "c"))
    generate = ["generate", run, "--model", model]
    said = "--label must be one with training items, a, c, but {} has none and the model has never met it"
    for asked, meant in (("b", "b"), (3, "d")):
        for dry in ([], ["--dry-run"]):
            assert _twostage(*generate, "--label", asked, *dry) == 2
            assert said.format(meant) in capsys.readouterr().err
    assert _twostage(*generate, "--count", 5, "--out", tmp_path / "out") == 0
    assert set(_contents(tmp_path / "out")) == {*(f"000{i}-{'ac'[i % 2]}.png" for i in range(5)), "grid.png"}
    # One class a column, three rows; each behind a border of one.
    overview = _pixels(tmp_path / "out/grid.png")
    scale = overview.shape[1] // 19
    assert overview.shape == (28 * scale, 19 * scale)


def test_the_library_refuses_labels_without_training_items_and_leaves_them_out_in_turn(write_run: WriteRun) -> None:
    model = load_run(write_run(names=("a", "b", "c", "d"), trained=("a", "c")))
    for labels in (1, [0, 1, 2], torch.tensor([3, 1, 0])):
        with pytest.raises(UsageError, match=r"labels must be one with training items, a, c, but (b|b, d) has none"):
            model.generate(3, labels=labels)
    assert torch.equal(model.sample_codes(3), model.sample_codes(3, labels=[0, 2, 0]))


def test_only_its_own_images_of_an_earlier_call_are_replaced(
    write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(names=("$1 to $5", "a/b", "T-shirt"))
    assert _twostage("generate", run, "--count", 3) == 0
    assert set(_contents(run / "samples")) == {"0000-_1_to__5.png", "0001-a_b.png", "0002-T-shirt.png", "grid.png"}
    assert "3 images and grid.png in" in capsys.readouterr().err
    kept = {"0000-mine.png", "2021-completed-0000.png", "0002-T-shirt-reconstructed.png", "00000.txt"}
    for name in (*kept, "0003.png"):  # the last as calls without labels name theirs
        (run / "samples" / name).write_bytes(b"")
    assert _twostage("generate", run, "--count", 1, "--label", "a/b") == 0
    assert set(_contents(run / "samples")) == {"0000-a_b.png", "grid.png", *kept}
    assert "1 image and grid.png in" in capsys.readouterr().err


# --- Completion ---


@pytest.mark.parametrize("layers", [0, 1])
def test_completions_keep_the_first_rows_and_differ_in_the_others(
    write_run: WriteRun, pictures: list[Path], tmp_path: Path, layers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(label_dropout=0.1, autoregressive_layers=layers, autoregressive_channels=4)
    command = ["generate", run, "--complete", pictures[0], "--keep-rows", 3, "--count", 5]
    assert _twostage(*command, "--out", tmp_path / "out", "--seed", 4) == 0
    said = capsys.readouterr().err
    assert "keeping 3 of 4 rows of codes" in said
    assert "6 of 8 image rows" in said
    assert "first picture is the original" in said
    model = load_run(run)
    image = read_image(pictures[0], image_shape=(1, 8, 8), levels=17)
    known = model.vqvae.encode(torch.from_numpy(image)[None])[:, :, :3].expand(5, -1, -1, -1)
    codes = model.sample_codes(5, labels=None, known=known, seed=4)
    assert torch.equal(codes[:, :, :3], known)
    assert len(codes[:, :, 3].unique(dim=0)) == 5
    expected = to_bytes(model.decode(codes, seed=4).numpy(), 17)
    names = [f"cat-completed-{index:04d}.png" for index in range(5)]
    assert set(_contents(tmp_path / "out")) == {*names, "cat-completions.png"}
    for name, picture_CHW in zip(names, expected, strict=True):
        assert np.array_equal(_pixels(tmp_path / "out" / name), picture_CHW[0])
    # Six pictures in three columns, each behind a border of one, everything enlarged by the same factor.
    overview = _pixels(tmp_path / "out/cat-completions.png")
    scale = overview.shape[1] // 28
    assert overview.shape == (19 * scale, 28 * scale)
    shown = overview[::scale, ::scale]
    assert np.array_equal(shown[1:9, 1:9], _pixels(pictures[0]))
    assert np.array_equal(shown[1:9, 10:18], expected[0, 0])


def test_completions_take_a_label_where_the_prior_needs_one(
    write_run: WriteRun, pictures: list[Path], tmp_path: Path
) -> None:
    complete = ["--complete", pictures[1], "--keep-rows", 1, "--count", 2]
    run, free = write_run(), write_run(name="free", label_dropout=0.1)
    for where, flags, suffixes in (
        (run, [], ("-class_0", "-class_1")),
        (run, ["--label", 2], ("-class_2", "-class_2")),
        (free, [], ("", "")),
        (free, ["--unlabelled"], ("", "")),
        (free, ["--label", 2], ("-class_2", "-class_2")),
    ):
        out = tmp_path / f"out-{where.name}-{len(flags)}"
        assert _twostage("generate", where, *complete, *flags, "--out", out) == 0
        expected = {f"dog-completed-{index:04d}{suffix}.png" for index, suffix in enumerate(suffixes)}
        assert set(_contents(out)) == {*expected, "dog-completions.png"}


def test_completions_replace_those_of_the_same_file_only(
    write_run: WriteRun, pictures: list[Path], tmp_path: Path
) -> None:
    run = write_run(label_dropout=0.1)
    assert _twostage("generate", run, "--count", 2, "--unlabelled") == 0
    for picture, count in ((pictures[0], 3), (pictures[1], 1), (pictures[0], 1)):
        assert _twostage("generate", run, "--complete", picture, "--keep-rows", 2, "--count", count) == 0
    completions = {f"{name}-{end}.png" for name in ("cat", "dog") for end in ("completed-0000", "completions")}
    assert set(_contents(run / "samples")) == {"0000.png", "0001.png", "grid.png", *completions}
    assert _twostage("generate", run, "--count", 1, "--unlabelled") == 0
    assert set(_contents(run / "samples")) == {"0000.png", "grid.png", *completions}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--keep-rows", "4"], 2, "--keep-rows must be less than the 4 rows of codes (one is 2 image rows), but is 4"),
        (["--keep-rows", "1", "--model", "vae"], 2, "a VAE has continuous latents"),
        (["--keep-rows", "1", "--label", "3"], 2, "--label must be one of"),
        (["--keep-rows", "1", "--unlabelled"], 2, "label dropout"),
    ],
)
def test_completion_refuses_also_on_a_dry_run(
    write_run: WriteRun,
    pictures: list[Path],
    arguments: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = write_run()
    for dry in ([], ["--dry-run"]):
        assert _twostage("generate", run, "--complete", pictures[0], *arguments, *dry) == code
        assert said in capsys.readouterr().err
    assert _twostage("generate", run, "--complete", pictures[0].parent / "no.png", "--keep-rows", 1, "--dry-run") == 1
    assert "no.png" in capsys.readouterr().err
    assert _twostage("generate", run, "--complete", pictures[0], "--keep-rows", 1, "--dry-run") == 0
    assert "nothing was done" in capsys.readouterr().err
    assert not (run / "samples").exists()


def test_a_vae_has_no_label_to_leave_out(write_run: WriteRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run()
    assert _twostage("generate", run, "--model", "vae", "--unlabelled") == 2
    assert "--unlabelled" in capsys.readouterr().err


def test_samples_of_an_autoregressive_decoder_depend_on_seed_and_item(write_run: WriteRun) -> None:
    run = write_run(autoregressive_layers=1, autoregressive_channels=4)
    model = load_run(run)
    codes = model.sample_codes(3, seed=1)
    assert torch.equal(model.decode(codes, seed=1), model.generate(3, seed=1))
    assert not torch.equal(model.decode(codes, seed=1), model.decode(codes, seed=2))
    vae = load_run(run, model="vae")
    assert torch.equal(vae.generate(5, seed=1)[:2], vae.generate(2, seed=1))
