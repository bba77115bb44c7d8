"""Tiny committed checkpoints: every later version must load them and compute the same numbers.

The weights are a fixed wave, not random numbers, so that the files do not hang on a generator. A file may be rewritten
only when a change of a format or of the mathematics is meant and is announced in the CHANGELOG:

    python -P tests/test_goldens.py NAME ...
"""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stage1_vqvae import (
    VAE,
    VIMCO,
    VQVAE,
    AudioAutoencoder,
    AudioVAE,
    AudioVQVAE,
    Autoencoder,
    HierarchicalVQVAE,
    WaveNetDecoder,
)
from stage2_prior import HierarchicalPrior, PixelCNN, WaveNet

FOLDER = Path(__file__).parent / "goldens"
_STAGE1 = {"image_shape": (1, 4, 4), "levels": 5, "downsampling": 2, "channels": 6, "residual_channels": 3}
_AUDIO = {"speakers": 2, "speaker_channels": 2, "downsampling_layers": 4, "channels": 4, "residual_channels": 3}

_ATTENTION = {"attention_every": 1, "attention_heads": 2, "attention_head_channels": 3}


def _models() -> dict[str, nn.Module]:
    return {
        "vq-vae-ema-categorical": VQVAE(**_STAGE1, head_channels=4, embedding_dim=4, codebook_size=5, codebooks=2),
        "vq-vae-loss-hurdle": VQVAE(
            **_STAGE1, head_channels=4, embedding_dim=3, codebook_size=5, update="loss", likelihood="hurdle"
        ),
        "vq-vae-autoregressive-mixture": VQVAE(
            **{**_STAGE1, "image_shape": (3, 4, 4)},
            head_channels=4,
            embedding_dim=4,
            codebook_size=5,
            likelihood="logistic-mixture",
            mixtures=2,
            autoregressive_layers=2,
            autoregressive_channels=4,
            auxiliary_weight=1.0,
        ),
        "vq-vae-residual": VQVAE(
            **_STAGE1, head_channels=4, embedding_dim=3, quantiser="residual", codebook_size=5, codebooks=2
        ),
        "vq-vae-rate-weight": VQVAE(
            **_STAGE1, head_channels=4, embedding_dim=4, codebook_size=5, codebooks=2, rate_weight=0.3
        ),
        "vq-vae-fsq": VQVAE(**_STAGE1, head_channels=4, embedding_dim=3, quantiser="fsq", fsq_levels=(4, 3)),
        "vq-vae-cosine": VQVAE(
            **_STAGE1, head_channels=4, embedding_dim=3, quantiser="cosine", codebook_size=5, code_dim=2
        ),
        "vq-vae-simvq": VQVAE(
            **_STAGE1, head_channels=4, embedding_dim=4, quantiser="simvq", codebook_size=5, codebooks=2
        ),
        "vq-vae-hierarchy": HierarchicalVQVAE(
            **{**_STAGE1, "image_shape": (1, 16, 16)}, hierarchy=3, head_channels=4, embedding_dim=2, codebook_size=5
        ),
        "vq-vae-normalised": VQVAE(
            **_STAGE1,
            head_channels=4,
            embedding_dim=4,
            codebook_size=5,
            upsampling="nearest-convolution",
            normalisation="group",
            attention_blocks=1,
        ),
        "vae-hurdle": VAE(**_STAGE1, head_channels=4, latent_channels=2, likelihood="hurdle"),
        "autoencoder": Autoencoder(**_STAGE1, head_channels=4, latent_channels=2, latent_dim=3),
        "vimco": VIMCO(**_STAGE1, head_channels=4, embedding_dim=4, codebook_size=5, codebooks=2, samples=2),
        "audio-vq-vae": AudioVQVAE(
            **_AUDIO, residual_blocks=1, head_channels=4, mixtures=2, embedding_dim=4, codebook_size=5, codebooks=2
        ),
        "audio-vae": AudioVAE(**_AUDIO, residual_blocks=1, head_channels=4, mixtures=2, latent_channels=2),
        "audio-cvae": AudioVAE(
            **_AUDIO, residual_blocks=1, head_channels=4, mixtures=2, latent_channels=2, classes=3, kl_warmup_steps=2
        ),
        "audio-autoencoder": AudioAutoencoder(
            **_AUDIO, residual_blocks=1, head_channels=4, likelihood="mu-law", latent_channels=2
        ),
        "wavenet-decoder": WaveNetDecoder(
            condition_channels=3,
            stride=4,
            mixtures=2,
            speakers=2,
            speaker_channels=2,
            channels=2,
            blocks=1,
            layers_per_block=2,
            head_channels=3,
        ),
        "wavenet": WaveNet(
            codebook_size=5, max_length=6, codebooks=2, classes=(3, 2), channels=4, blocks=2, layers_per_block=2
        ),
        "wavenet-attention": WaveNet(
            codebook_size=5, max_length=6, codebooks=2, classes=(3, 2), channels=4, layers_per_block=2, **_ATTENTION
        ),
        "pixelcnn-attention": PixelCNN(
            codebook_size=5, grid=(3, 2), codebooks=2, classes=(3,), channels=4, layers=3, **_ATTENTION
        ),
        "hierarchical-pixelcnn": HierarchicalPrior(
            codebook_size=5, grids=((1, 2), (2, 4)), codebooks=2, classes=(3,), channels=4, layers=2, first_kernel=3
        ),
        "pixelcnn": PixelCNN(codebook_size=5, grid=(3, 2), codebooks=2, classes=(3,), channels=4, layers=3),
    }


def _fill(model: nn.Module) -> None:
    with torch.no_grad():
        for offset, (name, tensor) in enumerate(sorted(model.state_dict().items())):
            wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float32) * 0.7 + offset)
            wave = wave.abs() if name.endswith("usage") else wave
            tensor.copy_(0.5 * wave.reshape(tensor.shape))


@torch.no_grad()
def _outputs(model: nn.Module) -> dict[str, Tensor]:
    if isinstance(model, WaveNet):
        codes, lengths = (torch.arange(24) * 7 % 5).reshape(2, 2, 6), torch.tensor([4, 6])
        parts = model.log_prob_parts(codes, torch.tensor([[0, 1], [2, 0]]), lengths)
        return {"codes": parts.codes, "end": parts.end}
    if isinstance(model, PixelCNN):
        codes = (torch.arange(24) * 7 % 5).reshape(2, 2, 3, 2)
        return {"log_prob": model.log_prob(codes, torch.tensor([[0], [2]]))}
    if isinstance(model, HierarchicalPrior):
        codes = (torch.arange(40) * 7 % 5).reshape(2, 2, 10)
        return {"log_prob": model.log_prob(codes, torch.tensor([[0], [2]]))}
    if isinstance(model, AudioVQVAE | AudioVAE | AudioAutoencoder | WaveNetDecoder):
        return _audio_outputs(model)
    assert isinstance(model, VQVAE | HierarchicalVQVAE | VAE | Autoencoder | VIMCO)
    x = (torch.arange(2 * model.dims) % 5).reshape(2, *model.image_shape)
    if isinstance(model, VQVAE | HierarchicalVQVAE):
        codes = model.encode(x)
        return {"codes": codes, "log_prob": model.log_prob(x, codes), "mean": model.decode(codes)}
    if isinstance(model, Autoencoder):
        latents = model.encode(x)
        return {"latents": latents, "log_prob": model.log_prob(x, latents), "mean": model.decode(latents)}
    if isinstance(model, VIMCO):
        codes = model.encode(x)
        numbers = {"log_prior": model.log_prior(codes), "log_prob": model.log_prob(x, codes)}
        return {"codes": codes, "posterior": model.posterior(x), "mean": model.decode(codes), **numbers}
    posterior = model.posterior(x)
    return {"mean": posterior.mean, "kl": posterior.kl_nats(), "reconstruction": model.reconstruct(x)}


def _audio_outputs(model: AudioVQVAE | AudioVAE | AudioAutoencoder | WaveNetDecoder) -> dict[str, Tensor]:
    """Of two recordings by two speakers, 32 samples long and 20, both padded to 32."""
    samples = ((torch.arange(64) * 7919 % 2001) - 1000).to(torch.int16).reshape(2, 32)
    mask, speakers = torch.arange(32) < torch.tensor([[32], [20]]), torch.tensor([1, 0])
    if isinstance(model, WaveNetDecoder):
        vectors = torch.linspace(-1, 1, 48).reshape(2, 3, 8)
        return {"log_prob": model.log_prob(samples, mask, vectors, speakers)}
    lengths = model.code_lengths(mask.sum(1))
    if isinstance(model, AudioVQVAE):
        codes = model.encode(samples, mask)
        log_prob = model.log_prob(samples, mask, codes, speakers)
        return {"codes": codes, "log_prob": log_prob, "waveform": model.decode(codes, lengths, speakers)}
    if isinstance(model, AudioAutoencoder):
        latents = model.encode(samples, mask)
        log_prob = model.log_prob(samples, mask, latents, speakers)
        return {"latents": latents, "log_prob": log_prob, "waveform": model.decode(latents, lengths, speakers)}
    labels = torch.tensor([2, 0]) if model.classes else None
    posterior = model.posterior(samples, mask, labels)
    reconstruction = model.reconstruct(samples, mask, speakers, labels)
    log_prob = model.decoder.log_prob(posterior.mean, samples, mask, speakers, labels)
    return {"mean": posterior.mean, "kl": posterior.kl_nats(), "log_prob": log_prob, "reconstruction": reconstruction}


@pytest.mark.parametrize("name", sorted(_models()))
def test_committed_weights_still_load_and_give_the_same_numbers(name: str) -> None:
    model = _models()[name].eval()
    model.load_state_dict(load_file(FOLDER / f"{name}.weights.safetensors"))
    expected = load_file(FOLDER / f"{name}.outputs.safetensors")
    actual = _outputs(model)
    assert actual.keys() == expected.keys()
    for key, tensor in actual.items():
        torch.testing.assert_close(tensor, expected[key], atol=1e-5, rtol=1e-5)


if __name__ == "__main__":
    for golden_name in sys.argv[1:]:
        golden = _models()[golden_name]
        _fill(golden.eval())
        weights = {key: tensor.detach().clone().contiguous() for key, tensor in golden.state_dict().items()}
        save_file(weights, FOLDER / f"{golden_name}.weights.safetensors")
        outputs = {key: tensor.contiguous() for key, tensor in _outputs(golden).items()}
        save_file(outputs, FOLDER / f"{golden_name}.outputs.safetensors")
