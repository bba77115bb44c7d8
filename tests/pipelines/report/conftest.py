"""Small runs, trained for a few steps and evaluated, of images and of recordings."""

import shutil
from pathlib import Path

import pytest

from twostage.config.load import parse_recipe
from twostage.config.schema import Recipe
from twostage_pipelines.cli.main import main

_STEPS = """
[{section}_training]
steps = 4
batch_size = 8
learning_rate = 2e-3
validate_every = 2
checkpoint_every = 4
"""
_TRAININGS = "".join(_STEPS.format(section=section) for section in ("codebook", "baseline", "prior"))
IMAGES = f"""
name = "images"
threads = 1
models = ["vq-vae", "ae", "vae", "beta-vae-0.1", "cvae", "vimco"]
[data]
name = "digits"
[stage1]
downsampling = 2
channels = 8
residual_blocks = 1
residual_channels = 4
head_channels = 8
[quantiser]
codebook_size = 4
embedding_dim = 4
[gaussian]
latent_dim = 2
network = "mlp"
mlp_width = 16
[vimco]
samples = 2
[prior]
layers = 2
channels = 8
first_kernel = 3
[evaluation]
iwae_samples = 2
{_TRAININGS}
"""
SOUNDS = f"""
name = "sounds"
threads = 1
models = ["vq-vae", "vae", "beta-vae-0.1"]
[data]
name = "vowels"
[audio]
channels = 8
residual_blocks = 1
residual_channels = 4
head_channels = 4
speaker_channels = 4
segment_samples = 1024
mixtures = 2
[quantiser]
codebook_size = 8
embedding_dim = 4
[gaussian]
latent_channels = 3
[wavenet_decoder]
blocks = 1
layers_per_block = 2
channels = 4
head_channels = 4
mixtures = 2
segment_samples = 1024
[wavenet_prior]
blocks = 1
layers_per_block = 3
channels = 4
[evaluation]
iwae_samples = 2
sampled_items = 2
{_TRAININGS}
{_STEPS.format(section="decoder")}
"""


@pytest.fixture(scope="session")
def audio_recipe() -> Recipe:
    """That of `audio_run`."""
    return parse_recipe(SOUNDS, source="test", default_name="sounds")


def _trained(folder: Path, recipe: str) -> Path:
    (folder / "recipe.toml").write_text(recipe)
    assert main(["train", str(folder / "recipe.toml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of model of digits, evaluated and reported; not to be written to."""
    return _trained(tmp_path_factory.mktemp("images"), IMAGES)


@pytest.fixture(scope="session")
def audio_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of vowels with both decoders and a prior, evaluated and reported; not to be written to."""
    return _trained(tmp_path_factory.mktemp("sounds"), SOUNDS)


@pytest.fixture(params=["images", "sounds"])
def run_of_each_kind(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run of every kind of data."""
    made = request.getfixturevalue({"images": "image_run", "sounds": "audio_run"}[request.param])
    return Path(shutil.copytree(made, tmp_path / "run"))
