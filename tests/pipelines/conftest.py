"""Run folders without their training: tiny models with random weights, enough where bytes or numbers are compared."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stage1_vqvae import AudioVQVAE, WaveNetDecoder
from stage2_prior import PixelCNN, WaveNet
from twostage.config.load import dump_recipe, load_recipe, parse_recipe
from twostage.config.model_names import model_spec
from twostage.config.schema import PriorConfig, Recipe, Stage1Config
from twostage.data.audio import AudioDataset, AudioSplit
from twostage.storage.checkpoint import load_checkpoint, save_checkpoint
from twostage_pipelines.media.png import to_bytes
from twostage_pipelines.modality import audio_networks
from twostage_pipelines.modality.images import build_stage1, prior_architecture

LEVELS = 17
SHAPE = (1, 8, 8)


def _save(folder: Path, model: torch.nn.Module, record: dict[str, Any]) -> str:
    """Digest of the weights."""
    tensors, record = {"model": model.state_dict()}, {**record, "config": {"training": {"steps": 1}}}
    for name in ("step-00000001", "best"):
        save_checkpoint(
            folder / name, tensors=tensors, state={"step": 1, "seconds": 2.0, "finished": True, "record": record}
        )
    return load_checkpoint(folder / "best").sha256["model.safetensors"]


def _stage1(recipe: Recipe, seed: int) -> tuple[torch.nn.Module, dict[str, Any]]:
    common = {"image_shape": SHAPE, "levels": LEVELS, **recipe.stage1.networks}
    architecture = {**common, "codebook_size": 16, "codebooks": 2, "embedding_dim": 4}
    torch.manual_seed(seed)
    model = build_stage1("vq-vae", architecture)
    for name, parameter in model.decoder.named_parameters():
        if name.startswith("likelihood") and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=2.0)  # images with contrast
    model.initialise_codebook(torch.randint(LEVELS, (64, *SHAPE)), seed=seed)
    return model, architecture


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder: `vq-vae` with its prior over 4x4 positions of 2 codes, K = 16; `vae`; with classes `cvae`.

    Keyword arguments: `name` of the folder, `seed` of the weights, `classes` of the data or their `names`, which of
    these have training items, and settings of `Stage1Config` and `PriorConfig`.
    """

    def write(
        *,
        name: str = "run",
        seed: int = 0,
        classes: int = 3,
        names: tuple[str, ...] | None = None,
        trained: tuple[str, ...] | None = None,
        **settings: Any,
    ) -> Path:
        names = tuple(f"class {index}" for index in range(classes)) if names is None else names
        own = {key: settings.pop(key) for key in list(settings) if key in PriorConfig.__dataclass_fields__}
        small = {"downsampling": 2, "channels": 8, "residual_blocks": 1, "residual_channels": 4, "head_channels": 8}
        recipe = replace(
            load_recipe("digits"),
            stage1=Stage1Config(**(small | settings)),
            prior=PriorConfig(**({"layers": 2, "channels": 8, "first_kernel": 3} | own)),
        )
        run = tmp_path / name
        run.mkdir()
        (run / "config.toml").write_text(dump_recipe(recipe))
        facts = {"dataset": "digits", "classes": list(names)}
        facts |= {"trained_labels": list(names if trained is None else trained)}
        model, architecture = _stage1(recipe, seed)
        _save(run / "models/vq-vae/stage1", model, {"kind": "vq-vae", "architecture": architecture, **facts})
        sha256 = load_checkpoint(run / "models/vq-vae/stage1/best").sha256["model.safetensors"]
        prior_settings = prior_architecture(recipe, model, len(names))
        prior = PixelCNN(**prior_settings)
        torch.nn.init.normal_(prior.head.output_weight_GSK, std=1.0)
        record = {"kind": "pixelcnn", "architecture": prior_settings, "stage1_sha256": sha256, **facts}
        _save(run / "models/vq-vae/prior", prior, record)
        vae_settings = {**architecture, "latent_channels": 2}
        for key in ("codebook_size", "codebooks", "embedding_dim"):
            vae_settings.pop(key)
        vae = build_stage1("vae", vae_settings)
        if names:
            cvae_settings = {**vae_settings, "classes": len(names)}
            cvae = build_stage1("cvae", cvae_settings)
            _save(run / "models/cvae/stage1", cvae, {"kind": "cvae", "architecture": cvae_settings, **facts})
        _save(run / "models/vae/stage1", vae, {"kind": "vae", "architecture": vae_settings, **facts})
        return run

    return write


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Four PNG files of the size the runs work on, in folders of their own."""
    paths = []
    for index, name in enumerate(("cat", "dog", "grid", "für elise")):
        path = tmp_path / f"folder{index}" / f"{name}.png"
        path.parent.mkdir()
        levels = np.random.default_rng(index).integers(0, LEVELS, SHAPE)
        Image.fromarray(to_bytes(levels, LEVELS)[0]).save(path)
        paths.append(path)
    return paths


RATE_HZ = 8000
RECIPE = """
threads = 1
models = ["vq-vae", "vae"]
[data]
name = "recordings"
[recordings]
sample_rate_hz = 8000
pattern = "{label}_{speaker}_{index}"
[audio]
channels = 8
residual_blocks = 1
residual_channels = 4
head_channels = 4
speaker_channels = 4
mixtures = 2
[quantiser]
codebook_size = 16
embedding_dim = 4
[gaussian]
latent_channels = 2
[wavenet_decoder]
blocks = 1
layers_per_block = 2
channels = 4
head_channels = 4
mixtures = 2
[wavenet_prior]
blocks = 1
layers_per_block = 3
channels = 4
"""


def noise(samples: int, seed: int) -> np.ndarray:
    """int16 [samples]."""
    return np.random.default_rng(seed).integers(-9000, 9000, samples).astype(np.int16)


def _dataset(classes: tuple[str, ...], speakers: tuple[str, ...]) -> AudioDataset:
    recordings = [noise(700 + 100 * item, item) for item in range(3)]
    split = AudioSplit(
        samples=np.concatenate(recordings),
        offsets=np.cumsum([0, *map(len, recordings)]),
        labels=np.arange(3) % max(len(classes), 1),
        speakers=np.arange(3) % max(len(speakers), 1),
        names=("x", "y", "z"),
    )
    return AudioDataset("recordings", RATE_HZ, classes, speakers, split, split, split, split_rule="none")


@pytest.fixture(scope="session")
def write_audio_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a run folder with `vq-vae` (16 codes, one per 64 samples), its WaveNet decoder and prior, `vae`,
    `ae` and, with labels, `cvae`.

    Keyword arguments: `classes`, `speakers`, `heard` (the speakers that were trained on), `conditional` and
    `label_dropout` of the prior.
    """

    def write(
        *,
        classes: tuple[str, ...] = ("no", "yes"),
        speakers: tuple[str, ...] = ("ann", "bob", "eve"),
        heard: tuple[str, ...] = ("ann", "bob"),
        conditional: bool = True,
        label_dropout: float = 0.0,
    ) -> Path:
        text = f"{RECIPE}conditional = {str(conditional).lower()}\nlabel_dropout = {label_dropout}\n"
        recipe = parse_recipe(text, source="test", default_name="spoken")
        run, dataset = tmp_path_factory.mktemp("spoken"), _dataset(classes, speakers)
        (run / "config.toml").write_text(dump_recipe(recipe))
        facts = {"dataset": "recordings", "classes": list(classes), "speakers": list(speakers)}
        facts |= {"trained_labels": list(classes), "trained_speakers": list(heard) if speakers else []}
        facts |= {"sample_rate_hz": RATE_HZ}
        torch.manual_seed(0)
        for name in ("vq-vae", "vae", "ae", *(("cvae",) if classes else ())):
            spec = model_spec(name, recipe)
            architecture = audio_networks.stage1_architecture(spec, recipe, dataset)
            model = audio_networks.build_stage1(f"audio-{spec.kind}", architecture)
            record = {**facts, "kind": f"audio-{spec.kind}", "architecture": architecture}
            if not isinstance(model, AudioVQVAE):
                _save(run / "models" / name / "stage1", model, record)
                continue
            samples = torch.from_numpy(noise(4096, 9))[None]
            model.initialise_codebook(samples, torch.ones_like(samples, dtype=torch.bool), seed=0)
            sha256 = _save(run / "models" / name / "stage1", model, record)
            for stage, kind, cls, settings in (
                ("decoder", "wavenet-decoder", WaveNetDecoder, audio_networks.decoder_architecture(recipe, model)),
                ("prior", "wavenet", WaveNet, audio_networks.prior_architecture(recipe, model, dataset)),
            ):
                record = {**facts, "kind": kind, "architecture": settings, "stage1_sha256": sha256}
                _save(run / "models" / name / stage, cls(**settings), record)
        return run

    return write


@pytest.fixture(scope="session")
def spoken_run(write_audio_run: Callable[..., Path]) -> Path:
    """A run of three speakers, of whom eve was never heard; not to be written to."""
    return write_audio_run()


@pytest.fixture(scope="session")
def spoken_dataset() -> AudioDataset:
    """What the models of `write_audio_run` could have been trained on: no, yes and no by ann, bob and eve."""
    return _dataset(("no", "yes"), ("ann", "bob", "eve"))
