"""`disentangle` on runs of tiny untrained models: the scores it writes, the models it takes, and what it refuses."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.vae import VAE
from twostage.config.load import dump_recipe
from twostage.config.schema import DataConfig, Recipe
from twostage.data import ImageDataset, load_dataset
from twostage.data.images.shapes import FACTOR_SIZES, render_shapes
from twostage.errors import RunError, UsageError
from twostage.metrics.disentanglement import SampleSizes, disentanglement
from twostage.storage.checkpoint import save_checkpoint
from twostage_pipelines.commands.results import Disentangle
from twostage_pipelines.evaluate.disentangle import (
    latent_means,
    run_disentangle,
    sample_sizes,
    shape_encoder,
    traversal_sheet,
)
from twostage_pipelines.modality.images import build_stage1

CPU = torch.device("cpu")
SHAPE: dict[str, Any] = {"image_shape": (1, 64, 64), "levels": 2, "downsampling": 8, "channels": 8}
TINY: dict[str, Any] = {**SHAPE, "residual_channels": 4, "head_channels": 4}
VECTOR: dict[str, Any] = {**TINY, "network": "mlp", "latent_dim": 3, "mlp_layers": 1, "mlp_width": 8}


@pytest.fixture(scope="module")
def shapes() -> ImageDataset:
    return load_dataset(DataConfig(name="shapes"))


@pytest.fixture
def run_of(tmp_path: Path, shapes: ImageDataset) -> Any:
    """Writes a run on the shapes whose finished models are those given, as (kind, arguments) by name."""

    def write(data: str = "shapes", **models: tuple[str, dict[str, Any]]) -> Path:
        (tmp_path / "config.toml").write_text(dump_recipe(Recipe(data=DataConfig(name=data), threads=1)))
        for name, (kind, architecture) in models.items():
            torch.manual_seed(len(name))
            state = build_stage1(kind, architecture).state_dict()
            facts = {"data": {"name": data, "sha256": shapes.sha256}, "training": {"steps": 1}}
            record = {"kind": kind, "architecture": architecture, "classes": [], "config": facts}
            for place in ("step-00000001", "best"):
                save_checkpoint(
                    tmp_path / "models" / name.replace("_", "-") / "stage1" / place,
                    tensors={"model": state},
                    state={"step": 1, "finished": True, "record": record},
                )
        return tmp_path

    return write


def command(run: Path, **settings: Any) -> Disentangle:
    return Disentangle(run=run, device="cpu", **{"samples": 1000, **settings}).resolved()


def test_sizes_are_in_proportion_and_whole_by_default() -> None:
    assert sample_sizes(15_000) == SampleSizes()
    assert sample_sizes(3000) == SampleSizes(
        codes=3000,
        group=64,
        beta_vae_train=100,
        beta_vae_test=60,
        factor_vae_train=120,
        factor_vae_test=80,
        factor_vae_variance=2000,
    )


def test_every_model_with_latents_is_scored_as_the_scores_say(
    run_of: Any, shapes: ImageDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    vq = {**TINY, "codebook_size": 4, "embedding_dim": 4}
    run = run_of(vae=("vae", VECTOR), ae=("ae", VECTOR), vq_vae=("vq-vae", vq))
    run_disentangle(command(run, seed=3))
    out, err = capsys.readouterr()
    assert "vq-vae has codes, no continuous latents and is left out" in err
    data = json.loads((run / "disentanglement.json").read_text())
    assert [(row["model"], row["beta"], row["latents"]) for row in data["rows"]] == [
        ("vae", 1.0, 3),
        ("ae", None, 3),
    ]
    assert data["factors"] == ["shape", "scale", "orientation", "x", "y"]
    assert data["sizes"] == asdict(sample_sizes(1000))
    torch.manual_seed(len("vae"))
    model = VAE(**VECTOR).eval()
    encode = shape_encoder(model, device=CPU, batch_size=100)
    expected = disentanglement(encode, FACTOR_SIZES, categorical=(0,), sizes=sample_sizes(1000), seed=3)
    row = data["rows"][0]
    names = ("mig", "sap", "beta_vae", "factor_vae")
    assert [row[name] for name in names] == pytest.approx([getattr(expected, name) for name in names], abs=1e-6)
    assert np.asarray(row["dci_importance"]).shape == (3, 5)
    assert f"{row['mig']:.3f}" in out
    assert "1,000 codes" in out
    assert "chance 0.20" in out
    for name in ("vae", "ae"):
        with Image.open(run / "samples" / f"{name}-traversals.png") as picture:
            assert picture.size == (1 + 12 * 65, 3 * (64 + 2))


def test_a_model_that_is_not_finished_is_named(run_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(vae=("vae", VECTOR))
    (run / "models/beta-vae-4/stage1").mkdir(parents=True)
    run_disentangle(command(run, dry_run=True))
    err = capsys.readouterr().err
    assert "beta-vae-4 is not finished and is left out" in err
    assert "would score vae on" in err


def test_one_model_can_be_asked_for_and_a_dry_run_writes_nothing(
    run_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(vae=("vae", VECTOR), beta_vae_4=("vae", {**VECTOR, "beta": 4.0}))
    before = sorted(run.rglob("*"))
    run_disentangle(command(run, model="beta-vae-4", dry_run=True))
    assert "would score beta-vae-4 on 1000 codes" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before


def test_codes_are_posterior_means_and_an_autoencoders_latents(shapes: ImageDataset) -> None:
    images = shapes.test.images[:5]
    torch.manual_seed(0)
    vae, autoencoder = VAE(**TINY, latent_channels=2).eval(), Autoencoder(**VECTOR).eval()
    with torch.no_grad():
        mean = vae.posterior(torch.from_numpy(images)).mean
    assert (latent_means(vae, images, device=CPU, batch_size=5) == mean.flatten(1).numpy()).all()
    latents = autoencoder.encode(torch.from_numpy(images))
    np.testing.assert_allclose(latent_means(autoencoder, images, device=CPU, batch_size=2), latents, atol=1e-6)
    factors = np.array([[2, 5, 39, 31, 0], [0, 0, 0, 0, 0]])
    expected = latent_means(vae, render_shapes(factors), device=CPU, batch_size=2)
    assert (shape_encoder(vae, device=CPU, batch_size=2)(factors) == expected).all()


def test_the_latents_that_vary_most_are_moved(shapes: ImageDataset) -> None:
    torch.manual_seed(0)
    model = VAE(**{**VECTOR, "latent_dim": 12}).eval()
    with torch.no_grad():
        last = model.encoder[-1]
        last.weight[:12] *= torch.arange(1.0, 13.0)[torch.randperm(12)][:, None]
    images = shapes.test.images[:50]
    order = latent_means(model, images, device=CPU, batch_size=50).var(0).argsort()[::-1][:10].tolist()
    sheet = traversal_sheet("vae", model, images, device=CPU, batch_size=50)
    assert f"from the top latents {', '.join(map(str, order))}." in sheet.caption
    assert "the prior N(0, I)" in sheet.caption
    assert sheet.picture_CHW.shape == (1, 10 * 66, 1 + 12 * 65)
    plain = traversal_sheet("ae", Autoencoder(**VECTOR).eval(), images, device=CPU, batch_size=50)
    assert "for want of a prior" in plain.caption


class TestRefusals:
    def test_data_without_factors(self, run_of: Any) -> None:
        run = run_of(data="digits")
        with pytest.raises(UsageError, match=r"factors are known, data.name = shapes, but .* is on digits"):
            run_disentangle(command(run))

    def test_a_model_without_latents(self, run_of: Any) -> None:
        run = run_of(vq_vae=("vq-vae", {**TINY, "codebook_size": 4, "embedding_dim": 4}))
        with pytest.raises(UsageError, match="--model vq-vae has codes"):
            run_disentangle(command(run, model="vq-vae"))
        with pytest.raises(RunError, match="no finished model with continuous latents"):
            run_disentangle(command(run))

    def test_a_model_that_is_given_the_label(self, run_of: Any) -> None:
        run = run_of(vae=("vae", {**VECTOR, "classes": 3}))
        with pytest.raises(UsageError, match="--model vae is given the label"):
            run_disentangle(command(run, model="vae"))

    def test_a_model_of_other_data(self, run_of: Any, monkeypatch: pytest.MonkeyPatch, shapes: ImageDataset) -> None:
        run = run_of(vae=("vae", VECTOR))
        other = replace(shapes, classes=("a", "b", "c"))
        monkeypatch.setattr("twostage_pipelines.evaluate.disentangle.load_dataset", lambda _: other)
        with pytest.raises(RunError, match="was trained on shapes data with digest"):
            run_disentangle(command(run))

    @pytest.mark.parametrize("settings", [{"samples": 999}, {"seed": -1}, {"model": "vea"}])
    def test_settings_out_of_range(self, tmp_path: Path, settings: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=r"^--(samples|seed|model)"):
            command(tmp_path, **settings)
