"""Stage one: encoder -> bottleneck (vector quantiser, or Gaussian for the baseline) -> decoder -> likelihood."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stage1_vqvae.quantiser import Quantised, VectorQuantiser
    from stage1_vqvae.sound_vae import SoundVAE
    from stage1_vqvae.sound_vqvae import SoundVQVAE
    from stage1_vqvae.vae import VAE
    from stage1_vqvae.vqvae import VQVAE
    from stage1_vqvae.wavenet_decoder import WaveNetDecoder

__all__ = ["VAE", "VQVAE", "Quantised", "SoundVAE", "SoundVQVAE", "VectorQuantiser", "WaveNetDecoder"]

_HOME = {
    "SoundVAE": "stage1_vqvae.sound_vae",
    "SoundVQVAE": "stage1_vqvae.sound_vqvae",
    "VAE": "stage1_vqvae.vae",
    "VQVAE": "stage1_vqvae.vqvae",
    "Quantised": "stage1_vqvae.quantiser",
    "VectorQuantiser": "stage1_vqvae.quantiser",
    "WaveNetDecoder": "stage1_vqvae.wavenet_decoder",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
