"""Every kind of quantiser from the recipe to the table: codes, prior, range coder, samples, evaluation, and back."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stage1_vqvae import VQVAE, AudioVQVAE
from twostage.config.quantiser import QUANTISERS
from twostage.config.schema import DataConfig
from twostage.data import load_dataset
from twostage.data.audio import load_synthetic_vowels
from twostage.storage.codes import load_codes
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main
from twostage_pipelines.media.wav import write_wav

KINDS: dict[str, tuple[str, int, int]] = {
    "vq": ("codebook_size = 12\ncodebooks = 2", 2, 12),
    "residual": ("codebook_size = 8\ncodebooks = 3\nquantiser_dropout = 0.5\nrate_weight = 0.05", 3, 8),
    "fsq": ("fsq_levels = [3, 4, 4, 3]\ncodebooks = 2", 2, 12),
    "cosine": ("codebook_size = 16\ncode_dim = 4", 1, 16),
    "simvq": ("codebook_size = 16", 1, 16),
}
"""Lines of the recipe, G and K."""

COMMON = """
name = "small"
threads = 1
models = ["vq-vae"]
[quantiser]
kind = "{kind}"
embedding_dim = 6
{lines}
[codebook_training]
steps = 20
batch_size = 8
learning_rate = 2e-3
validate_every = 20
checkpoint_every = 10
[prior_training]
steps = 15
batch_size = 8
learning_rate = 2e-3
validate_every = 15
checkpoint_every = 15
"""
DIGITS = """
[data]
name = "digits"
[stage1]
downsampling = 4
channels = 16
residual_blocks = 1
residual_channels = 8
head_channels = 8
[prior]
layers = 2
channels = 12
first_kernel = 3
[evaluation]
coded_items = 3
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


def twostage(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def _trained(folder: Path, kind: str, text: str) -> Path:
    recipe = folder / "small.toml"
    recipe.write_text(COMMON.format(kind=kind, lines=KINDS[kind][0]) + text)
    twostage("train", recipe, "--out", folder / "run")
    return folder / "run"


def _rows(run: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    return {row["prior"]: row for row in rows if row["decoder"] in (None, "convolutional")}


def test_every_kind_is_tried() -> None:
    assert KINDS.keys() == QUANTISERS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_images_from_recipe_to_samples_and_back(kind: str, tmp_path: Path) -> None:
    run, (_, groups, size) = _trained(tmp_path, kind, DIGITS), KINDS[kind]
    codes = load_codes(run / "codes" / "vq-vae" / "test.safetensors")
    assert codes.codes.shape == (300, groups, 2, 2)
    assert (codes.header.codebook_size, codes.header.codebooks) == (size, groups)
    rows = _rows(run)
    assert rows["uniform"]["rate_bits_per_dim"] == pytest.approx(4 * groups * math.log2(size) / 64)
    assert rows["learned"]["bits_per_dim"] < 4.5
    assert rows["learned"]["codebook_size"] == size * groups
    twostage("generate", run, "--count", 4, "--out", tmp_path / "new")
    assert len(list((tmp_path / "new").glob("0*.png"))) == 4
    digit = load_dataset(DataConfig(name="digits")).test.images[0, 0]
    Image.fromarray((digit.astype(np.uint16) * 255 // 16).astype(np.uint8)).save(tmp_path / "digit.png")
    twostage("encode", run, tmp_path / "digit.png", "--out", tmp_path / "c.safetensors")
    twostage("decode", run, tmp_path / "c.safetensors", "--out", tmp_path / "back")
    model = load_run(run).vqvae
    assert isinstance(model, VQVAE)
    own = torch.from_numpy(codes.codes[:5].astype(np.int64))
    images = torch.from_numpy(load_dataset(DataConfig(name="digits")).test.images[:5])
    assert torch.equal(model.encode(images), own)
    assert torch.equal(model.quantiser(model.quantised_levels(images)[0][0]).vectors, model.quantiser.lookup(own))


@pytest.mark.parametrize("kind", KINDS)
def test_sounds_from_recipe_to_samples_and_back(kind: str, tmp_path: Path) -> None:
    run, (_, groups, size) = _trained(tmp_path, kind, VOWELS), KINDS[kind]
    codes, test = load_codes(run / "codes" / "vq-vae" / "test.safetensors"), load_synthetic_vowels().test
    assert (codes.header.codebook_size, codes.header.codebooks) == (size, groups)
    assert codes.lengths is not None
    uniform = _rows(run)["uniform"]["rate_bits_per_dim"]
    assert uniform == pytest.approx(codes.lengths.sum() * groups * math.log2(size) / test.lengths.sum())
    twostage("generate", run, "--count", 2, "--out", tmp_path / "new")
    assert len(list((tmp_path / "new").glob("*.wav"))) == 2
    write_wav(tmp_path / "a_low_0.wav", test.recording(0), 8000)
    twostage("encode", run, tmp_path / "a_low_0.wav", "--speaker", "low", "--out", tmp_path / "c.safetensors")
    twostage("decode", run, tmp_path / "c.safetensors", "--out", tmp_path / "back")
    back = load_codes(tmp_path / "c.safetensors").codes
    assert np.array_equal(back[0], codes.codes[0, :, : back.shape[2]])
    model = load_run(run).vqvae
    assert isinstance(model, AudioVQVAE)
    assert not model.encode(*_padded(test.recording(0), model.stride))[..., -3:].any()  # nothing behind the end


def _padded(samples: np.ndarray, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A recording and its mask, padded with noise by three codes more than it has."""
    length = len(samples)
    padded = torch.randint(-9000, 9000, (1, (-(-length // stride) + 3) * stride), dtype=torch.int16)
    padded[0, :length] = torch.from_numpy(samples)
    return padded, torch.arange(padded.shape[1])[None] < length
