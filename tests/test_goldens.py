"""Tiny committed checkpoints: every later version must load them and compute the same numbers.

The weights are a fixed wave, not random numbers, so that the files do not hang on a generator. A file may be rewritten
only when a change of a format or of the mathematics is meant and is announced in the CHANGELOG:

    python -P tests/test_goldens.py
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stage1_vqvae import VAE, VQVAE
from stage2_prior import PixelCNN, WaveNet

FOLDER = Path(__file__).parent / "goldens"
_STAGE1 = {"image_shape": (1, 4, 4), "levels": 5, "downsampling": 2, "channels": 6, "residual_channels": 3}


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
        "vae-hurdle": VAE(**_STAGE1, head_channels=4, latent_channels=2, likelihood="hurdle"),
        "wavenet": WaveNet(
            codebook_size=5, max_length=6, codebooks=2, classes=(3, 2), channels=4, blocks=2, layers_per_block=2
        ),
        "pixelcnn": PixelCNN(codebook_size=5, grid=(3, 2), codebooks=2, classes=(3,), channels=4, layers=3),
    }


def _fill(model: nn.Module) -> None:
    with torch.no_grad():
        for offset, (_, tensor) in enumerate(sorted(model.state_dict().items())):
            wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float32) * 0.7 + offset)
            tensor.copy_(0.5 * wave.reshape(tensor.shape))


@torch.no_grad()
def _outputs(model: nn.Module) -> dict[str, Tensor]:
    if isinstance(model, WaveNet):
        codes, lengths = (torch.arange(24) * 7 % 5).reshape(2, 2, 6), torch.tensor([4, 6])
        parts = model.log_prob_parts(codes, torch.tensor([[0, 1], [2, 0]]), lengths)
        return {"codes": parts.codes_B, "end": parts.end_B}
    if isinstance(model, PixelCNN):
        codes = (torch.arange(24) * 7 % 5).reshape(2, 2, 3, 2)
        return {"log_prob": model.log_prob(codes, torch.tensor([[0], [2]]))}
    assert isinstance(model, VQVAE | VAE)
    x = (torch.arange(2 * model.dims) % 5).reshape(2, *model.image_shape)
    if isinstance(model, VQVAE):
        codes = model.encode(x)
        return {"codes": codes, "log_prob": model.log_prob(x, codes), "mean": model.decode(codes)}
    posterior = model.posterior(x)
    return {"mean": posterior.mean, "kl": posterior.kl_nats(), "reconstruction": model.reconstruct(x)}


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
    for golden_name, golden in _models().items():
        _fill(golden.eval())
        weights = {key: tensor.detach().clone().contiguous() for key, tensor in golden.state_dict().items()}
        save_file(weights, FOLDER / f"{golden_name}.weights.safetensors")
        outputs = {key: tensor.contiguous() for key, tensor in _outputs(golden).items()}
        save_file(outputs, FOLDER / f"{golden_name}.outputs.safetensors")
