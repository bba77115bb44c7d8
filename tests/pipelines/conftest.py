"""A run folder without its training: tiny models with random weights, which is enough wherever bytes are compared."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stage2_prior import PixelCNN
from twostage.config.load import dump_recipe, load_recipe
from twostage.config.schema import PriorConfig, Recipe, Stage1Config
from twostage.storage.checkpoint import load_checkpoint, save_checkpoint
from twostage_pipelines.media.png import to_bytes
from twostage_pipelines.modality.images import build_stage1, prior_architecture

LEVELS = 17
SHAPE = (1, 8, 8)


def _save(folder: Path, model: torch.nn.Module, record: dict[str, Any]) -> None:
    tensors = {"model": model.state_dict()}
    record = {**record, "config": {"training": {"steps": 1}}}
    for name in ("step-00000001", "best"):
        save_checkpoint(folder / name, tensors=tensors, state={"step": 1, "finished": True, "record": record})


def _stage1(recipe: Recipe, seed: int) -> tuple[torch.nn.Module, dict[str, Any]]:
    common = {"image_shape": SHAPE, "levels": LEVELS, **asdict(recipe.stage1)}
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
