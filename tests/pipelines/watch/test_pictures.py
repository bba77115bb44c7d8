"""Pictures at validations: which are kept, what they show, and that the training is the same without them."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twostage.errors import RunError
from twostage.storage.checkpoint import load_checkpoint
from twostage_pipelines.cli.main import main
from twostage_pipelines.modality.pictures import Heard
from twostage_pipelines.watch import folder as folder_module
from twostage_pipelines.watch.folder import (
    MOST_ROWS,
    MOST_STEPS,
    PictureFolder,
    fitted,
    kept_steps,
    pictured_steps,
)

IMAGES = """
models = ["vq-vae"]
threads = 1
quantiser = {codebook_size = 8, embedding_dim = 4}
prior = {layers = 1, channels = 4}
codebook_training = {steps = 8, batch_size = 8, validate_every = 2, checkpoint_every = 4, learning_rate = 3e-2}
prior_training = {steps = 4, batch_size = 8, validate_every = 2, checkpoint_every = 4}
[stage1]
channels = 8
downsampling = 2
residual_blocks = 1
residual_channels = 4
head_channels = 4
likelihood = "mse"
"""
SOUND = """
models = ["vq-vae"]
threads = 1
data = {name = "vowels"}
quantiser = {codebook_size = 16, embedding_dim = 4}
wavenet_decoder = {blocks = 1, layers_per_block = 2, channels = 4, head_channels = 4, mixtures = 2}
wavenet_prior = {blocks = 1, layers_per_block = 3, channels = 4}
codebook_training = {steps = 2, batch_size = 4, validate_every = 1}
decoder_training = {steps = 2, batch_size = 4, validate_every = 2}
prior_training = {steps = 2, batch_size = 4, validate_every = 1}
[audio]
channels = 8
residual_blocks = 1
residual_channels = 4
head_channels = 4
speaker_channels = 4
mixtures = 2
"""


def _trained(tmp_path: Path, recipe: str, *verbs: str, name: str = "run") -> Path:
    file, run = tmp_path / "recipe.toml", tmp_path / name
    file.write_text(recipe, encoding="utf-8")
    assert main(["train-codebook", str(file), "--out", str(run), "--device", "cpu"]) == 0
    for verb in verbs:
        assert main([verb, str(run), "--device", "cpu"]) == 0
    return run / "models/vq-vae"


def _files(training: Path) -> dict[str, bytes]:
    return {place.name: place.read_bytes() for place in sorted((training / "pictures").iterdir())}


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_images_are_shown_beside_their_originals_and_over_the_steps(tmp_path: Path) -> None:
    model = _trained(tmp_path, IMAGES, "train-prior")
    found = _files(model / "stage1")
    assert sorted(found) == [*(f"step-{step:08d}.png" for step in (2, 4, 6, 8)), "strip.png"]
    first, last = (_pixels(found[f"step-{step:08d}.png"]) for step in (2, 8))
    row = 1 + 8 * 6
    assert first.shape == (1 + 2 * row, 1 + 8 * row)
    assert np.array_equal(first[:row], last[:row])  # the same originals
    assert not np.array_equal(first[row:], last[row:])
    strip = _pixels(found["strip.png"])[:, 64:]
    assert len(strip) == 1 + 5 * row  # originals and four steps
    assert np.array_equal(strip[: row + 1], first[: row + 1])
    assert np.array_equal(strip[row : 2 * row + 1], first[row:])
    assert np.array_equal(strip[-row - 1 :], last[row:])
    prior = _files(model / "prior")
    assert sorted(prior) == ["step-00000002.png", "step-00000004.png", "strip.png"]
    assert _pixels(prior["step-00000004.png"]).shape == (1 + row, 1 + 8 * row)


def test_the_training_is_the_same_without_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _trained(tmp_path, IMAGES, "train-prior")
    assert "pictures and logs took another" in capsys.readouterr().err
    without = IMAGES.replace("steps =", "pictures = false, steps =")
    plain = _trained(tmp_path, without, "train-prior", name="plain")
    assert "pictures" not in capsys.readouterr().err
    for stage in ("stage1", "prior"):
        assert (shown / stage / "pictures").is_dir()
        assert not (plain / stage / "pictures").exists()
        both = [load_checkpoint(model / stage / "best").sha256["model.safetensors"] for model in (shown, plain)]
        assert both[0] == both[1]
        assert (shown / stage / "metrics.jsonl").read_bytes() == (plain / stage / "metrics.jsonl").read_bytes()


def test_a_training_that_goes_on_has_the_pictures_of_one_that_was_never_interrupted(tmp_path: Path) -> None:
    training = _trained(tmp_path, IMAGES) / "stage1"
    whole = _files(training)
    shutil.rmtree(training / "step-00000008")  # as a kill before that checkpoint leaves it
    (training / "pictures/step-00000006.png").write_bytes(b"of a later step that will come again")
    assert (
        main(["train-codebook", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    )
    assert _files(training) == whole


def test_recordings_are_shown_and_heard(tmp_path: Path) -> None:
    model = _trained(tmp_path, SOUND, "train-decoder", "train-prior")
    for stage, steps, originals in (("stage1", (1, 2), True), ("decoder", (2,), True), ("prior", (1, 2), False)):
        found = _files(model / stage)
        names = [f"step-{step:08d}.{suffix}" for step in steps for suffix in ("png", "wav")]
        assert sorted(found) == sorted([*names, "strip.png", *(["originals.wav"] if originals else [])])
        assert found[f"step-{steps[-1]:08d}.wav"][:4] == b"RIFF"
        if originals:
            assert len(found["originals.wav"]) == len(found[f"step-{steps[-1]:08d}.wav"])


@pytest.mark.parametrize("every", [1, 7, 500])
def test_few_steps_are_kept_whatever_came_before(every: int) -> None:
    for validations in range(1, 300):
        newest = validations * every
        kept = kept_steps(newest, every=every, most=MOST_STEPS)
        assert kept[-1] == newest
        assert len(kept) <= MOST_STEPS + 1
        assert len(kept) > min(validations, MOST_STEPS) // 2
        assert set(kept_steps(newest, every=every, most=MOST_ROWS)) <= set(kept)
        if validations > 1:  # nothing is wanted that was thrown away before
            assert set(kept) <= {*kept_steps(newest - every, every=every, most=MOST_STEPS), newest}
    assert kept_steps(1003, every=500, most=MOST_STEPS) == [500, 1000, 1003]  # the last step of all


def _keep(pictures: PictureFolder, step: int) -> None:
    made_NCHW = np.full((3, 1, 8, 8), step % 251, np.uint8)
    heard = Heard(np.full(4, step, np.int16), 8000)
    pictures.keep(step, originals_NCHW=made_NCHW * 0, made_NCHW=made_NCHW, originals=heard, made=heard)


def test_a_folder_of_many_validations_stays_small(tmp_path: Path) -> None:
    pictures = PictureFolder(tmp_path, every=1)
    for step in range(1, 101):
        _keep(pictures, step)
    assert pictured_steps(tmp_path / "pictures") == kept_steps(100, every=1, most=MOST_STEPS)
    strip = _pixels((tmp_path / "pictures/strip.png").read_bytes())
    wanted = [0, *kept_steps(100, every=1, most=MOST_ROWS)]
    assert [int(strip[5 + 9 * at, 70]) for at in range(len(wanted))] == wanted
    pictures.begin(60)
    assert max(pictured_steps(tmp_path / "pictures")) == 60


def test_a_damaged_picture_is_left_out_of_the_strip(tmp_path: Path) -> None:
    pictures = PictureFolder(tmp_path, every=1)
    for step in (1, 2):
        _keep(pictures, step)
    (tmp_path / "pictures/step-00000001.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    _keep(pictures, 3)
    strip = _pixels((tmp_path / "pictures/strip.png").read_bytes())
    assert [int(strip[5 + 9 * at, 70]) for at in range(3)] == [0, 2, 3]
    assert len(strip) == 1 + 3 * 9


@pytest.mark.parametrize(
    ("shape", "expected"), [((8, 8), (48, 48)), ((28, 28), (56, 56)), ((256, 256), (128, 128)), ((64, 256), (32, 128))]
)
def test_large_pictures_are_scaled_down_and_small_ones_up(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    pictures_NCHW = np.full((2, 3, *shape), 100, np.uint8)
    assert fitted(pictures_NCHW).shape == (2, 3, *expected)
    assert (fitted(pictures_NCHW) == 100).all()


def test_a_picture_that_cannot_be_written_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise RunError("no space left")

    monkeypatch.setattr(folder_module, "write_atomic", refuse)
    training = _trained(tmp_path, IMAGES) / "stage1"
    assert (training / "best").is_dir()
    said = capsys.readouterr().err
    assert said.count("goes on without some of its pictures: no space left") == 1
