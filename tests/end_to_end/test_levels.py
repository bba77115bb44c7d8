"""A residual quantiser decodes from the first of its levels: the more of them, the nearer, of images and sounds."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twostage.config.schema import DataConfig
from twostage.data import load_dataset
from twostage.data.audio import load_synthetic_vowels
from twostage.errors import UsageError
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main
from twostage_pipelines.media.wav import write_wav

RECIPE = """
name = "small"
threads = 1
models = ["vq-vae"]
[quantiser]
kind = "residual"
codebook_size = 8
codebooks = 3
embedding_dim = 8
quantiser_dropout = 0.5
[codebook_training]
steps = {steps}
batch_size = 16
learning_rate = 3e-3
validate_every = {steps}
checkpoint_every = {steps}
[prior_training]
steps = 4
batch_size = 8
validate_every = 4
checkpoint_every = 4
"""
DIGITS = """
[data]
name = "digits"
[stage1]
downsampling = 2
channels = 24
residual_blocks = 1
residual_channels = 12
head_channels = 12
[prior]
layers = 2
channels = 8
first_kernel = 3
"""
VOWELS = """
[data]
name = "vowels"
[audio]
channels = 12
residual_blocks = 1
residual_channels = 8
head_channels = 8
speaker_channels = 4
segment_samples = 1024
mixtures = 2
[wavenet_decoder]
blocks = 0
[wavenet_prior]
blocks = 1
layers_per_block = 3
channels = 8
"""


def _trained(folder: Path, text: str, steps: int) -> Path:
    (folder / "small.toml").write_text(RECIPE.format(steps=steps) + text)
    for verb, of in (("train-codebook", folder / "small.toml"), ("train-prior", folder / "run")):
        assert main([verb, str(of), *(["--out", str(folder / "run")] if verb == "train-codebook" else [])]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _trained(tmp_path_factory.mktemp("digits"), DIGITS, 150)


@pytest.fixture(scope="module")
def vowels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _trained(tmp_path_factory.mktemp("vowels"), VOWELS, 30)


def test_every_level_brings_images_nearer(digits: Path) -> None:
    model = load_run(digits)
    images = torch.from_numpy(load_dataset(DataConfig(name="digits")).validation.images)
    errors = [(model.reconstruct(images, levels=n) - images).square().mean().item() for n in (1, 2, 3)]
    assert errors[0] > 1.02 * errors[1]
    assert errors[1] > 1.02 * errors[2]
    assert torch.equal(model.reconstruct(images, levels=3), model.reconstruct(images))
    codes = model.vqvae.encode(images)
    assert torch.equal(model.decode(codes, levels=2), model.vqvae.decode(codes[:, :2]))


def test_samples_of_fewer_levels_have_the_codes_of_all(digits: Path) -> None:
    model = load_run(digits)
    codes = model.sample_codes(5, seed=3)
    assert torch.equal(model.generate(5, seed=3, levels=1), model.vqvae.decode(codes[:, :1]))


def _said_bits(said: str) -> float:
    found = re.search(r"given the codes[^:]*: ([0-9.]+)", said)
    assert found is not None, said
    return float(found[1])


def test_verbs_of_images_decode_a_prefix(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = load_dataset(DataConfig(name="digits")).test.images[0]
    path, codes = tmp_path / "digit.png", tmp_path / "c.safetensors"
    Image.fromarray((image[0].astype(np.uint16) * 255 // 16).astype(np.uint8)).save(path)
    bits = {}
    for levels in (1, 3):
        assert main(["reconstruct", str(digits), str(path), "--levels", str(levels), "--out", str(tmp_path)]) == 0
        bits[levels] = _said_bits("".join(capsys.readouterr()))
    assert bits[1] > bits[3]
    assert main(["encode", str(digits), str(path), "--out", str(codes)]) == 0
    for levels in ("1", "2", "3"):
        out = ["--levels", levels, "--out", str(tmp_path / levels)]
        assert main(["decode", str(digits), str(codes), *out]) == 0
        assert main(["generate", str(digits), "--count", "2", *out]) == 0
    for name in ("digit.png", "grid.png"):  # decoded, generated
        assert len({(tmp_path / levels / name).read_bytes() for levels in ("1", "2", "3")}) == 3


def test_verbs_of_sound_decode_a_prefix(vowels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = load_synthetic_vowels().test.recording(0)
    path, codes = tmp_path / "a_low_0.wav", tmp_path / "c.safetensors"
    write_wav(path, recording, 8000)
    said = ["--speaker", "low"]
    assert main(["encode", str(vowels), str(path), *said, "--out", str(codes)]) == 0
    for levels in ("1", "3"):
        out = ["--levels", levels, "--out", str(tmp_path / levels)]
        assert main(["reconstruct", str(vowels), str(path), *said, *out]) == 0
        assert main(["decode", str(vowels), str(codes), *out]) == 0
        assert main(["convert", str(vowels), str(path), "--speaker", "high", *out]) == 0
        assert main(["generate", str(vowels), "--count", "1", *out]) == 0
    for name in ("a_low_0.wav", "a_low_0-reconstructed.wav", "a_low_0-as-high.wav"):
        assert (tmp_path / "1" / name).read_bytes() != (tmp_path / "3" / name).read_bytes()
    model = load_run(vowels)
    one, whole = model.reconstruct(recording, speakers="low", levels=1), model.reconstruct(recording, speakers="low")
    assert len(one[0].samples) == len(whole[0].samples) == len(recording)
    prefix = model.decode(model.encode(recording), speakers="high", levels=1)[0]
    assert np.array_equal(model.convert(recording, "high", levels=1)[0].samples, prefix.samples)
    capsys.readouterr()
    assert main(["convert", str(vowels), str(path), "--speaker", "high", "--levels", "4", "--dry-run"]) == 2
    assert "expected levels from 1 to 3" in capsys.readouterr().err


@pytest.mark.parametrize("levels", [0, 4])
@pytest.mark.parametrize(
    "verb", [lambda m, **how: m.generate(1, **how), lambda m, **how: m.decode(np.zeros((1, 3, 4, 4), np.int64), **how)]
)
def test_other_numbers_of_levels_are_refused(digits: Path, levels: int, verb: Callable[..., object]) -> None:
    with pytest.raises(UsageError, match=f"levels from 1 to 3, as many as model vq-vae has, got {levels}"):
        verb(load_run(digits), levels=levels)
