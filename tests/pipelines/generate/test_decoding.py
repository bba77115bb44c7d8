"""Draws of models without a learned prior: from the distribution they say, item by item, whatever the batch."""

from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import VAE
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.vimco import VIMCO
from twostage.errors import UsageError
from twostage_pipelines.generate import decoding as drawing
from twostage_pipelines.generate.decoding import sample_autoencoder, sample_vae, sample_vimco

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"image_shape": (1, 4, 4), "levels": 5, "downsampling": 2, "channels": 8, "head_channels": 4}


@pytest.fixture
def latents_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents or codes in the place of their images."""
    monkeypatch.setattr(drawing, "decode_in_batches", lambda model, latents, **settings: latents)


@pytest.mark.usefixtures("latents_only")
def test_autoencoder_draws_have_mean_and_covariance_of_the_latents() -> None:
    torch.manual_seed(0)
    model = Autoencoder(**SMALL, network="mlp", latent_dim=3, mlp_width=8).eval()
    images = np.random.default_rng(0).integers(0, 5, (600, 1, 4, 4), dtype=np.uint8)
    own = model.encode(torch.from_numpy(images)).double().numpy()
    drawn = sample_autoencoder(model, images, 4000, seed=0, device=CPU).double().numpy()
    scale = own.std(0)
    np.testing.assert_allclose(drawn.mean(0) / scale, own.mean(0) / scale, atol=0.08)
    expected = np.cov(own.T) / np.outer(scale, scale)
    assert abs(np.triu(expected, 1)).max() > 0.2  # independent draws would miss it
    np.testing.assert_allclose(np.cov(drawn.T) / np.outer(scale, scale), expected, atol=0.08)
    few = sample_autoencoder(model, images, 3, seed=0, device=CPU).double().numpy()
    np.testing.assert_allclose(few, drawn[:3], rtol=1e-5)
    alone = sample_autoencoder(model, images[:2], 50, seed=0, device=CPU)  # a singular covariance
    assert torch.isfinite(alone).all()
    with pytest.raises(UsageError, match="at least 2 images"):
        sample_autoencoder(model, images[:1], 1, seed=0, device=CPU)


@pytest.mark.usefixtures("latents_only")
def test_vimco_draws_follow_the_table_of_each_position() -> None:
    model = VIMCO(**SMALL, codebook_size=3, codebooks=2, embedding_dim=4)
    torch.nn.init.normal_(model.prior_logits)
    codes = sample_vimco(model, 3000, seed=1, device=CPU)
    assert codes.shape == (3000, 2, 2, 2)
    share = torch.nn.functional.one_hot(codes, 3).double().mean(0)
    expected = model.prior_logits.detach().double().softmax(-1)
    assert (expected.flatten(0, -2)[0] - expected.flatten(0, -2)[1]).abs().max() > 0.2  # positions differ
    torch.testing.assert_close(share, expected, atol=0.04, rtol=0.0)
    assert torch.equal(sample_vimco(model, 5, seed=1, device=CPU), codes[:5])
    assert not torch.equal(sample_vimco(model, 5, seed=2, device=CPU), codes[:5])
    best = sample_vimco(model, 4, top_k=1, seed=0, device=CPU)
    assert torch.equal(best, expected.argmax(-1).expand_as(best))
    cold = sample_vimco(model, 500, temperature=0.25, seed=1, device=CPU)
    sharper = (model.prior_logits.detach().double() / 0.25).softmax(-1)
    torch.testing.assert_close(torch.nn.functional.one_hot(cold, 3).double().mean(0), sharper, atol=0.1, rtol=0.0)


def test_conditional_vae_decodes_every_item_with_its_own_label(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = VAE(**SMALL, classes=3, latent_channels=2).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    labels = torch.tensor([0, 1, 2, 0, 1])
    together = sample_vae(model, 5, labels_N=labels, seed=0, device=CPU)
    monkeypatch.setattr(drawing, "DECODE_BATCH", 2)
    torch.testing.assert_close(sample_vae(model, 5, labels_N=labels, seed=0, device=CPU), together)
    other = sample_vae(model, 5, labels_N=labels.flip(0), seed=0, device=CPU)
    changed = (other - together).flatten(1).abs().amax(1) > 1e-3
    assert changed.tolist() == (labels != labels.flip(0)).tolist()
