"""Checkpoints whose digests are right and whose record describes another model than their weights are."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stage1_vqvae import VQVAE, AudioVQVAE, HierarchicalVQVAE, WaveNetDecoder
from stage2_prior import HierarchicalPrior, PixelCNN, WaveNet
from twostage.errors import TwoStageError
from twostage.storage.checkpoint import save_checkpoint
from twostage_pipelines.modality.audio_networks import build_stage1 as build_audio
from twostage_pipelines.modality.checks import as_arguments
from twostage_pipelines.modality.images import Images, build_stage1
from twostage_pipelines.runs.loading import load_model

IMAGES: dict[str, dict[str, Any]] = {
    "vq-vae": {"codebook_size": 4, "embedding_dim": 4},
    "hierarchical-vq-vae": {"codebook_size": 4, "embedding_dim": 4, "downsampling": 2},
    "vimco": {"codebook_size": 4, "embedding_dim": 4},
    "ae": {"latent_channels": 2},
    "vae": {"latent_dim": 2, "network": "mlp", "mlp_layers": 2, "mlp_width": 4},
    "cvae": {"latent_channels": 2, "classes": 3},
}
ARCHITECTURE: dict[str, Any] = {
    "image_shape": (1, 8, 8), "levels": 17, "likelihood": "hurdle", "channels": 4, "residual_blocks": 1,
    "residual_channels": 4, "head_channels": 4,
}  # fmt: skip
SOUND: dict[str, Any] = {
    "channels": 8, "residual_blocks": 1, "residual_channels": 4, "head_channels": 4, "embedding_dim": 4,
    "codebook_size": 16, "speakers": 3, "speaker_channels": 2,
}  # fmt: skip
OTHERS: dict[str, tuple[type[torch.nn.Module], dict[str, Any]]] = {
    "prior": (PixelCNN, {"codebook_size": 4, "grid": (2, 2), "classes": (3,), "channels": 4, "layers": 2}),
    "prior of a hierarchy": (
        HierarchicalPrior,
        {"codebook_size": 4, "grids": ((1, 2), (2, 4)), "classes": (3,), "channels": 4, "layers": 2},
    ),
    "sound prior": (
        WaveNet,
        {"codebook_size": 4, "max_length": 8, "classes": (3,), "blocks": 1, "layers_per_block": 2, "channels": 4},
    ),
    "decoder": (
        WaveNetDecoder,
        {"blocks": 1, "layers_per_block": 2, "channels": 4, "kernel": 2, "head_channels": 4, "condition_channels": 4,
         "stride": 64, "speakers": 3, "speaker_channels": 2},
    ),
}  # fmt: skip
ADDRESS_SPACE = 512 << 20


def stage1_of(record: dict[str, Any]) -> torch.nn.Module:
    return build_stage1(record["kind"], record["architecture"])


def _save(folder: Path, model: torch.nn.Module, record: dict[str, Any]) -> None:
    save_checkpoint(folder / "best", tensors={"model": model.state_dict()}, state={"record": record})


@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_of_image_model_is_loaded_as_it_was(kind: str, tmp_path: Path) -> None:
    architecture = {**ARCHITECTURE, **IMAGES[kind]}
    model = build_stage1(kind, architecture)
    _save(tmp_path, model, {"kind": kind, "architecture": architecture})
    _same(model, load_model(tmp_path, torch.device("cpu"), stage1_of).model)


def test_every_kind_of_other_model_is_loaded_as_it_was(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    for kind in ("audio-vq-vae", "audio-vae"):
        own = {**SOUND} if kind == "audio-vq-vae" else {k: v for k, v in SOUND.items() if "code" not in k}
        own |= {} if kind == "audio-vq-vae" else {"latent_channels": own.pop("embedding_dim")}
        model = build_audio(kind, own)
        _save(tmp_path / kind, model, {"kind": kind, "architecture": own})
        loaded = load_model(tmp_path / kind, cpu, lambda record: build_audio(record["kind"], record["architecture"]))
        _same(model, loaded.model)
    for name, (cls, own) in OTHERS.items():
        other = cls(**own)
        _save(tmp_path / name, other, {"architecture": own})
        _same(
            other,
            load_model(tmp_path / name, cpu, lambda record, cls=cls: cls(**as_arguments(record["architecture"]))).model,
        )


def test_no_kind_of_model_is_loaded_with_the_help_of_the_compiler(tmp_path: Path) -> None:
    """Its import takes half as long as all of torch; see what `_ShapesOnly` leaves to torch's meta device."""
    program = """if True:
        import pathlib, sys
        import test_bad_models as loads
        folder = pathlib.Path(sys.argv[1])
        for kind in loads.IMAGES:
            loads.test_every_kind_of_image_model_is_loaded_as_it_was(kind, folder / kind)
        loads.test_every_kind_of_other_model_is_loaded_as_it_was(folder)
        print(sorted(sys.modules.keys() & {"torch._dynamo", "sympy"}))
    """
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert done.stdout.strip() == "[]"


def _same(one: torch.nn.Module, other: torch.nn.Module) -> None:
    """Buffers that are made and not stored included."""
    before, after = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (one, other))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


HOSTILE: dict[str, dict[str, Any]] = {
    "wide": {"channels": 100_000},
    "wide as no tensor can be": {"channels": 10**30},
    "a wide head": {"head_channels": 10**9},
    "a large codebook": {"codebook_size": 2**40},
    "many codebooks": {"codebooks": 10**9, "embedding_dim": 10**9},
    "deep": {"residual_blocks": 10**9},
    "deep in pixels": {"autoregressive_layers": 10**9},
    "many levels": {"levels": 10**12},
    "half as wide": {"channels": 2},
    "text for a number": {"channels": "8"},
    "none for a number": {"channels": None},
    "a fraction": {"channels": 8.5},
    "a setting of no model": {"pickle": True},
    "not positive": {"channels": -8},
}


@pytest.mark.parametrize("claim", HOSTILE)
def test_a_record_that_claims_another_model_is_refused_before_it_takes_memory(claim: str, tmp_path: Path) -> None:
    architecture = {**ARCHITECTURE, **IMAGES["vq-vae"]}
    claimed = {"kind": "vq-vae", "architecture": {**architecture, **HOSTILE[claim]}}
    _save(tmp_path, VQVAE(**architecture), claimed)
    _refused_in_little_memory(tmp_path)


@pytest.mark.parametrize(
    "claim",
    [
        {"hierarchy": 3},
        {"hierarchy": 2.0},
        {"hierarchy": "2"},
        {"hierarchy": 10**9},
        {"hierarchy": 1000, "image_shape": [1, 2**1001, 2**1001]},
        {"hierarchy": 10, "image_shape": [1, 2**40, 2**40]},
    ],
)
def test_a_record_of_another_hierarchy_of_codebooks_is_refused(claim: dict[str, Any], tmp_path: Path) -> None:
    architecture = {**ARCHITECTURE, **IMAGES["hierarchical-vq-vae"]}
    claimed = {"kind": "hierarchical-vq-vae", "architecture": {**architecture, **claim}}
    _save(tmp_path, HierarchicalVQVAE(**architecture), claimed)
    _refused_in_little_memory(tmp_path)


@pytest.mark.parametrize(
    "record",
    [{}, {"kind": "vq-vae"}, {"kind": "vq-vae", "architecture": 7}, {"kind": ["vq-vae"], "architecture": {}}, [], None],
)
def test_a_record_that_describes_nothing_is_refused(record: Any, tmp_path: Path) -> None:
    _save(tmp_path, VQVAE(**ARCHITECTURE, **IMAGES["vq-vae"]), record)
    _refused_in_little_memory(tmp_path)


def test_weights_of_another_type_are_refused(tmp_path: Path) -> None:
    """They would take four times the memory of their file."""
    architecture = {**ARCHITECTURE, **IMAGES["vq-vae"]}
    model = VQVAE(**architecture)
    small = {name: tensor.to(torch.int8) for name, tensor in model.state_dict().items()}
    record = {"kind": "vq-vae", "architecture": architecture}
    save_checkpoint(tmp_path / "best", tensors={"model": small}, state={"record": record})
    _refused_in_little_memory(tmp_path)


def test_a_deep_sound_model_is_refused(tmp_path: Path) -> None:
    _save(tmp_path, AudioVQVAE(**SOUND), {"kind": "audio-vq-vae", "architecture": {**SOUND, "residual_blocks": 10**9}})
    with pytest.raises(TwoStageError, match="do not fit the model it describes"):
        load_model(tmp_path, torch.device("cpu"), lambda r: build_audio(r["kind"], r["architecture"]))


@pytest.mark.parametrize(
    "claim",
    [
        {"level_blocks": 10**9},
        {"layers": 10**9},
        {"codebook_size": 2**40},
        {"grids": [[10**6, 10**6], [10**12, 10**12]]},
        {"grids": [[1, 1], [1, 10**9]]},
        {"grids": [[2**level, 1] for level in range(500)]},
        {"grids": [["1", "2"], ["2", "4"]]},
        {"grids": [[1.0, 2.0], [2.0, 4.0]]},
        {"grids": 7},
        {"channels": None},
    ],
    ids=str,
)
def test_a_claim_of_another_hierarchy_is_refused(claim: dict[str, Any], tmp_path: Path) -> None:
    own = OTHERS["prior of a hierarchy"][1]
    _save(tmp_path, HierarchicalPrior(**own), {"kind": "hierarchical-pixelcnn", "architecture": {**own, **claim}})
    build = Images().build
    _refused_in_little_memory(tmp_path, lambda record: build(record["kind"], record["architecture"]))


def _refused_in_little_memory(folder: Path, build: Callable[[dict[str, Any]], torch.nn.Module] = stage1_of) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE, before[1]))
    try:
        with pytest.raises(TwoStageError, match=f"{folder}|channels|downsampling|codebook|kinds|levels") as caught:
            load_model(folder, torch.device("cpu"), build)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not isinstance(caught.value.__cause__, MemoryError)
    assert "allocate" not in str(caught.value.__cause__)
