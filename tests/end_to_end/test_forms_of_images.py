"""Images that are no squares of 8 bits through every verb: rectangles, 16 bits of grey, arrays."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twostage.data import load_dataset
from twostage.storage.codes import load_codes
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main
from twostage_pipelines.modality.pictures import to_levels
from twostage_pipelines.runs.run import Run

RECIPE = """
threads = 1
models = ["vq-vae", "vae", "ae"]
[data]
{data}
[stage1]
downsampling = {downsampling}
channels = 16
residual_blocks = 1
residual_channels = 8
head_channels = 8
likelihood = "{likelihood}"
mixtures = 2
[quantiser]
codebook_size = 8
embedding_dim = 4
[gaussian]
latent_channels = 2
[codebook_training]
steps = {steps}
batch_size = 16
learning_rate = 3e-3
validate_every = {steps}
[baseline_training]
steps = {steps}
batch_size = 16
learning_rate = 3e-3
validate_every = {steps}
[prior]
layers = 2
channels = 8
first_kernel = 3
[prior_training]
steps = 30
batch_size = 16
learning_rate = 3e-3
validate_every = 30
[evaluation]
iwae_samples = 2
search_items = 2
frechet_samples = 70
coded_items = 2
"""
ITEMS = 720


def waves(count: int, channels: int, height: int, width: int, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Waves that run across or down, `[N, C, H, W]` of levels 0..top, and which of both, `[N]`."""
    generator = np.random.default_rng(0)
    labels_N = np.arange(count) % 2
    down, across = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    along_NHW = np.where(labels_N[:, None, None] == 0, across, down) * 0.7 + generator.uniform(0, 6, (count, 1, 1))
    shade_C = np.linspace(1.0, 0.4, channels)[None, :, None, None]
    noise = generator.normal(0, 0.01, (count, channels, height, width))
    levels = (shade_C * (np.sin(along_NHW)[:, None] + 1) / 2 + noise) * top
    return np.rint(levels.clip(0, top)).astype(np.uint8 if top < 256 else np.uint16), labels_N


def write_folder(root: Path, images_NCHW: np.ndarray, labels_N: np.ndarray) -> None:
    for number, (image_CHW, label) in enumerate(zip(images_NCHW, labels_N, strict=True)):
        folder = root / ("across", "down")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(image_CHW, 0, -1).squeeze()).save(folder / f"{number:03d}.png")


def write_npy(root: Path, images_NCHW: np.ndarray, labels_N: np.ndarray) -> None:
    root.mkdir()
    np.save(root / "x.npy", images_NCHW[:, 0])
    np.save(root / "x_labels.npy", labels_N)


def write_npz(root: Path, images_NCHW: np.ndarray, labels_N: np.ndarray) -> None:
    root.mkdir()
    np.savez_compressed(root / "x.npz", images=images_NCHW, labels=labels_N)


@dataclass(frozen=True)
class Form:
    """One kind of images, and what becomes of it."""

    shape: tuple[int, int, int]
    top: int
    """The largest level."""
    write: Callable[[Path, np.ndarray, np.ndarray], None]
    file: str
    """In the folder that is written."""
    data: str
    suffix: str
    """Of the files that hold images."""
    label: str
    levels: int = 256
    likelihood: str = "logistic-mixture"
    downsampling: int = 4


FORMS = {
    "rectangles": Form(
        (3, 8, 16), 255, write_folder, ".", 'name = "images"\nimage_size = "8x16"\nhorizontal_flips = true', ".png",
        "across",
    ),
    "16 bits": Form(
        (1, 16, 32), 65535, write_folder, ".", 'name = "images"\nimage_size = "16x32"\ncolour = "grey"\nbits = 16',
        ".png", "down", levels=65536, downsampling=16,
    ),
    "npy": Form((1, 12, 8), 255, write_npy, "x.npy", 'name = "arrays"', ".png", "1", likelihood="hurdle"),
    "npz": Form((5, 8, 12), 2500, write_npz, "x.npz", 'name = "arrays"', ".npy", "0", levels=4096),
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    form: Form
    run: Path
    given: list[Path]
    """Files of three images."""
    images: np.ndarray
    """Their levels, `[3, C, H, W]`."""


@pytest.fixture(scope="module", params=FORMS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    form, folder = FORMS[request.param], tmp_path_factory.mktemp("forms")
    images_NCHW, labels_N = waves(ITEMS, *form.shape, form.top)
    form.write(folder / "data", images_NCHW, labels_N)
    text = RECIPE.format(data=form.data, downsampling=form.downsampling, likelihood=form.likelihood, steps=60)
    (folder / "recipe.toml").write_text(text)
    given = [folder / f"given{number}{form.suffix}" for number in range(3)]
    for path, image_CHW in zip(given, images_NCHW, strict=False):
        if form.suffix == ".npy":
            np.save(path, image_CHW)
        else:
            Image.fromarray(np.moveaxis(image_CHW, 0, -1).squeeze()).save(path)
    place = folder / "data" / form.file
    assert twostage("train", folder / "recipe.toml", "--data.path", place, "--out", folder / "run") == 0
    return Trained(form, folder / "run", given, images_NCHW[:3])


def twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def levels_in(path: Path, form: Form) -> np.ndarray:
    """`[C, H, W]` of a file that was written, read without the project."""
    if form.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    with Image.open(path) as picture:
        assert picture.mode == {(1, 256): "L", (3, 256): "RGB", (1, 65536): "I;16"}[form.shape[0], form.levels]
        pixels = np.asarray(picture)
    return np.moveaxis(pixels.reshape(*pixels.shape[:2], -1), -1, 0)


def test_every_model_is_scored_in_bits_of_its_alphabet(trained: Trained) -> None:
    evaluation = json.loads((trained.run / "evaluation.json").read_text())
    assert evaluation["dims"] == np.prod(trained.form.shape)
    rows = {(row["model"], row["bound"], row["prior"]): row for row in evaluation["rows"] if not row["search_items"]}
    assert {row["alphabet"] for row in rows.values()} == {trained.form.levels}
    mse = np.mean((load_dataset(Run.open(trained.run).recipe.data).test.images - trained.form.top / 2) ** 2.0)
    grey = 10 * np.log10((trained.form.levels - 1) ** 2 / mse)
    for row in rows.values():
        if row["model"] != "ae":
            assert 0 < row["bits_per_dim"] < np.log2(trained.form.levels) + 1
        assert row["psnr_db"] > grey - 8  # the peak is the largest level of the alphabet
    height, width = (side // trained.form.downsampling for side in trained.form.shape[1:])
    uniform = rows["vq-vae", "two-part", "uniform"]["rate_bits_per_dim"]
    assert uniform == pytest.approx(3 * height * width / np.prod(trained.form.shape))
    assert {score["model"]: score["samples"] > 0 for score in evaluation["sample_scores"]} == {
        "vq-vae": True,
        "vae": True,
        "ae": False,  # reconstructions alone are scored: it has nothing to draw from
    }


def test_files_come_back_as_the_model_says(trained: Trained, tmp_path: Path) -> None:
    form, model = trained.form, load_run(trained.run)
    assert twostage("reconstruct", trained.run, *trained.given, "--out", tmp_path / "r") == 0
    expected = to_levels(model.reconstruct(trained.images).numpy(), form.levels)
    for path, levels_CHW in zip(trained.given, expected, strict=True):
        np.testing.assert_array_equal(
            levels_in(tmp_path / f"r/{path.stem}-reconstructed{form.suffix}", form), levels_CHW
        )
    assert twostage("encode", trained.run, *trained.given, "--out", tmp_path / "codes.safetensors") == 0
    codes = load_codes(tmp_path / "codes.safetensors").codes
    np.testing.assert_array_equal(codes, model.encode(list(trained.images)).codes)
    assert codes.shape[2:] == tuple(side // form.downsampling for side in form.shape[1:])
    assert twostage("decode", trained.run, tmp_path / "codes.safetensors", "--out", tmp_path / "d") == 0
    for path, levels_CHW in zip(trained.given, expected, strict=True):
        np.testing.assert_array_equal(levels_in(tmp_path / f"d/{path.stem}{form.suffix}", form), levels_CHW)
    assert twostage("decode", trained.run, tmp_path / "codes.safetensors", "--out", tmp_path / "d") == 2


def test_new_images_are_those_of_load_run(trained: Trained, tmp_path: Path) -> None:
    form, model = trained.form, load_run(trained.run)
    for _ in range(2):  # the second time over the first
        assert twostage("generate", trained.run, "--count", 3, "--label", form.label, "--out", tmp_path) == 0
    expected = to_levels(model.generate(3, labels=form.label).numpy(), form.levels)
    for number, levels_CHW in enumerate(expected):
        stem = tmp_path / f"{number:04d}-{form.label}"
        np.testing.assert_array_equal(levels_in(stem.with_suffix(form.suffix), form), levels_CHW)
        with Image.open(stem.with_suffix(".png")) as picture:
            assert picture.size == form.shape[:0:-1]
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.mode == ("L" if form.shape[0] == 1 else "RGB")


def test_completions_keep_rows_and_the_report_has_its_sheets(trained: Trained, tmp_path: Path) -> None:
    form, image = trained.form, trained.given[0]
    arguments = ["generate", trained.run, "--complete", image, "--count", 2, "--out", tmp_path, "--label", form.label]
    rows = form.shape[1] // form.downsampling
    assert twostage(*arguments, "--keep-rows", rows) == 2
    assert twostage(*arguments, "--keep-rows", max(1, rows - 1)) == (0 if rows > 1 else 2)
    assert (tmp_path / f"{image.stem}-completed-0001-{form.label}{form.suffix}").exists() == (rows > 1)
    for sheet in ("neighbours", "reconstructions", "samples"):
        with Image.open(trained.run / "samples" / f"vae-{sheet}.png") as picture:
            assert picture.size[0] > form.shape[2]
    assert (trained.run / "report.html").is_file()


def test_images_of_another_form_are_refused(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = tmp_path / f"turned{trained.form.suffix}"
    image_CHW = trained.images[0].swapaxes(1, 2)
    if trained.form.suffix == ".npy":
        np.save(turned, image_CHW)
    else:
        Image.fromarray(np.moveaxis(image_CHW, 0, -1).squeeze()).save(turned)
    fits = "images" in trained.form.data  # brought to size as the folder was
    assert twostage("reconstruct", trained.run, turned, "--out", tmp_path / "r") == (0 if fits else 1)
    np.save(tmp_path / "floats.npy", trained.images[0] / 2)
    assert twostage("reconstruct", trained.run, tmp_path / "floats.npy", "--out", tmp_path / "r") == 1
    assert "holds float64 and not whole numbers" in capsys.readouterr().err
    Image.new("L", (8, 8)).save(tmp_path / "small.png")
    if trained.form.levels > 256:
        assert twostage("reconstruct", trained.run, tmp_path / "small.png", "--out", tmp_path / "r") == 1
