"""Stage one: encoder -> bottleneck (vector quantiser, or Gaussian for the baseline) -> decoder -> likelihood.

Models and their training tasks; nothing here knows a prior, a run folder or a recipe.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stage1_vqvae.audio.vae import AudioVAE
    from stage1_vqvae.audio.vqvae import AudioVQVAE
    from stage1_vqvae.audio.wavenet_decoder import WaveNetDecoder
    from stage1_vqvae.images.vae import VAE
    from stage1_vqvae.images.vqvae import VQVAE
    from stage1_vqvae.quantiser.interface import Quantised
    from stage1_vqvae.quantiser.quantiser import VectorQuantiser

__all__ = ["VAE", "VQVAE", "AudioVAE", "AudioVQVAE", "Quantised", "VectorQuantiser", "WaveNetDecoder"]

_HOME = {
    "AudioVAE": "stage1_vqvae.audio.vae",
    "AudioVQVAE": "stage1_vqvae.audio.vqvae",
    "VAE": "stage1_vqvae.images.vae",
    "VQVAE": "stage1_vqvae.images.vqvae",
    "Quantised": "stage1_vqvae.quantiser.interface",
    "VectorQuantiser": "stage1_vqvae.quantiser.quantiser",
    "WaveNetDecoder": "stage1_vqvae.audio.wavenet_decoder",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
