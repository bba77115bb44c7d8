"""A run folder on recordings without its training: random weights, which is enough wherever samples are compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import AudioVQVAE, WaveNetDecoder
from stage2_prior import WaveNet
from twostage.config.load import dump_recipe, parse_recipe
from twostage.config.model_names import model_spec
from twostage.data.audio import AudioDataset, AudioSplit
from twostage.storage.checkpoint import load_checkpoint, save_checkpoint
from twostage_pipelines.modality.audio_networks import (
    build_stage1,
    decoder_architecture,
    prior_architecture,
    stage1_architecture,
)

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


def _save(folder: Path, model: torch.nn.Module, record: dict[str, Any]) -> str:
    """Digest of the weights."""
    tensors, record = {"model": model.state_dict()}, {**record, "config": {"training": {"steps": 1}}}
    for name in ("step-00000001", "best"):
        save_checkpoint(folder / name, tensors=tensors, state={"step": 1, "finished": True, "record": record})
    return load_checkpoint(folder / "best").sha256["model.safetensors"]


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
            architecture = stage1_architecture(spec, recipe, dataset)
            model = build_stage1(f"audio-{spec.kind}", architecture)
            record = {**facts, "kind": f"audio-{spec.kind}", "architecture": architecture}
            if not isinstance(model, AudioVQVAE):
                _save(run / "models" / name / "stage1", model, record)
                continue
            samples = torch.from_numpy(noise(4096, 9))[None]
            model.initialise_codebook(samples, torch.ones_like(samples, dtype=torch.bool), seed=0)
            sha256 = _save(run / "models" / name / "stage1", model, record)
            for stage, kind, cls, settings in (
                ("decoder", "wavenet-decoder", WaveNetDecoder, decoder_architecture(recipe, model)),
                ("prior", "wavenet", WaveNet, prior_architecture(recipe, model, dataset)),
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
