"""One item to train on, one to validate, one to test; or items that are all the same: every verb ends well.

What has no value then, such as a ratio over the distance of another recording, is absent, and nothing else is lost.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from twostage_pipelines.cli.main import main

BUDGETS = """
[codebook_training]
steps = 4
batch_size = 1
[prior_training]
steps = 4
batch_size = 1
[baseline_training]
steps = 4
batch_size = 1
[quantiser]
codebook_size = 4
embedding_dim = 4
[gaussian]
latent_channels = 2
"""
IMAGES = (
    """
name = "one"
threads = 1
models = ["vq-vae", "ae", "vae", "vimco"]
[data]
name = "images"
image_size = 8
colour = "grey"
[stage1]
downsampling = 2
channels = 8
residual_blocks = 0
head_channels = 8
[prior]
layers = 2
channels = 8
[evaluation]
iwae_samples = 2
search_items = 2
coded_items = 2
frechet_samples = 10
"""
    + BUDGETS
)
SOUND = (
    """
name = "one"
threads = 1
models = ["vq-vae", "vae"]
[data]
name = "recordings"
[recordings]
pattern = "{label}_{speaker}_{index}"
test_indices = "2"
validation_indices = "1"
[audio]
channels = 8
residual_blocks = 0
head_channels = 8
segment_samples = 512
mixtures = 2
[wavenet_decoder]
blocks = 1
layers_per_block = 2
channels = 8
head_channels = 8
mixtures = 2
segment_samples = 512
[decoder_training]
steps = 4
batch_size = 1
[wavenet_prior]
blocks = 1
layers_per_block = 2
channels = 8
[evaluation]
iwae_samples = 2
sampled_items = 2
"""
    + BUDGETS
)


def twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(item, f"{path}.{key}")
    elif isinstance(value, float):
        yield path, value


def _evaluation(run: Path, split: str = "") -> dict[str, Any]:
    """evaluation.json, every number of which is finite."""

    def refuse(constant: str) -> float:
        pytest.fail(f"{constant} in evaluation.json")

    found: dict[str, Any] = json.loads((run / f"evaluation{split}.json").read_text(), parse_constant=refuse)
    assert [path for path, value in _numbers(found) if not math.isfinite(value)] == []
    return found


@pytest.mark.parametrize("alike", [False, True])
def test_one_image_of_everything(tmp_path: Path, alike: bool, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    (data / "only class").mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(3):
        pixels = np.zeros((8, 8), np.uint8) if alike else random.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(data / "only class" / f"{index}.png")
    (tmp_path / "one.toml").write_text(IMAGES)
    assert twostage("check-data", data) == 0
    assert twostage("train", tmp_path / "one.toml", "--data.path", data, "--out", run) == 0
    found, out = _evaluation(run), capsys.readouterr().out
    assert {row["standard_error"] for row in found["rows"]} == {None}
    assert {row["swapped_distortion_bits_per_dim"] for row in found["rows"]} == {None}
    assert not any(word in out.lower() for word in (" nan", " inf"))
    report = (run / "report.html").read_text()
    # A Gaussian of one autoencoder's latent cannot be fitted: its draws are left out, not the report.
    assert "<h2>ae</h2>" in report
    assert not (run / "samples/ae-samples.png").exists()
    assert (run / "samples/ae-reconstructions.png").is_file()
    assert (run / "samples/vq-vae-samples.png").is_file()
    picture = data / "only class/0.png"
    codes = tmp_path / "codes.safetensors"
    for command in (
        ("evaluate", run, "--split", "validation"),
        ("generate", run, "--count", 2),
        ("generate", run, "--complete", picture, "--keep-rows", 1),
        ("reconstruct", run, picture),
        ("encode", run, picture, "--out", codes),
        ("decode", run, codes),
    ):
        assert twostage(*command) == 0, command
    # One class tells nothing apart: no model of images given the label, in a sentence and before anything is trained.
    assert twostage("train-baseline", run, "--model", "cvae") == 2
    assert not (run / "models/cvae").exists()


def test_recordings_that_are_one_or_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tone = (3000 * np.sin(2 * np.pi * 300 / 8000 * np.arange(900))).astype(np.int16)
    (tmp_path / "one.toml").write_text(SOUND)
    for name, tests in (("single", 1), ("alike", 2)):
        data, run = tmp_path / name, tmp_path / f"run-{name}"
        data.mkdir()
        for index in range(2 + tests):  # one to train on, one to validate
            soundfile.write(data / f"word_ann_{index}.wav", tone, 8000)
        held_out = ("--recordings.test-indices", f"2-{1 + tests}")
        assert twostage("check-data", data) == 0
        assert twostage("train", tmp_path / "one.toml", "--data.path", data, *held_out, "--out", run) == 0
        found, out = _evaluation(run), capsys.readouterr().out
        assert {row["log_mel_ratio"] for row in found["rows"]} == {None}
        assert all(row["log_mel_l1"] > 0 for row in found["rows"])
        other = [row["swapped_distortion_bits_per_dim"] for row in found["rows"] if row["kind"] == "vq-vae"]
        if tests == 1:
            assert found["wrong_log_mel_l1"] is None
            assert set(other) == {None}
            assert {row["standard_error"] for row in found["rows"]} == {None}
            assert "of wrong" not in out
        else:
            assert found["wrong_log_mel_l1"] == 0
            assert None not in other
        assert not any(word in out.lower() for word in (" nan", " inf"))
        page = (run / "report.html").read_text()
        assert "<h3>Samples</h3>" in page
        assert not any(words in page for words in ("in the voice named", "asked for", "given label and speaker"))
    run, recording, codes = tmp_path / "run-single", tmp_path / "single/word_ann_0.wav", tmp_path / "codes.safetensors"
    for command in (
        ("evaluate", run, "--split", "validation"),
        ("generate", run, "--count", 1, "--seconds", 0.05, "--decoder", "wavenet"),
        ("reconstruct", run, recording),
        ("reconstruct", run, recording, "--model", "vae"),
        ("encode", run, recording, "--out", codes),
        ("decode", run, codes),
    ):
        assert twostage(*command) == 0, command
    # One label tells nothing apart, and there is nobody to convert to: each in a sentence.
    capsys.readouterr()
    assert twostage("train-baseline", run, "--model", "cvae") == 2
    assert "is given the label of every recording, but recordings has no labels: choose vae" in capsys.readouterr().err
    assert not (run / "models/cvae").exists()
    assert twostage("convert", run, recording, "--speaker", "ann") == 2
    assert "without speakers" in capsys.readouterr().err
