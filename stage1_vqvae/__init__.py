"""Stage one: encoder -> bottleneck (vector quantiser, or Gaussian for the baseline) -> decoder -> likelihood.

Models and their training tasks; nothing here knows a prior, a run folder or a recipe.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stage1_vqvae.audio.autoencoder import AudioAutoencoder
    from stage1_vqvae.audio.vae import AudioVAE
    from stage1_vqvae.audio.vqvae import AudioVQVAE
    from stage1_vqvae.audio.wavenet_decoder import WaveNetDecoder
    from stage1_vqvae.audio.with_decoder import WithDecoder
    from stage1_vqvae.images.autoencoder import Autoencoder
    from stage1_vqvae.images.hierarchy import HierarchicalVQVAE
    from stage1_vqvae.images.picture_decoder import PictureDecoder
    from stage1_vqvae.images.vae import VAE
    from stage1_vqvae.images.vimco import VIMCO
    from stage1_vqvae.images.vqvae import VQVAE
    from stage1_vqvae.images.with_picture import WithPictureDecoder
    from stage1_vqvae.interface import Codec, Stage1Model
    from stage1_vqvae.quantiser.interface import Quantised
    from stage1_vqvae.quantiser.quantiser import VectorQuantiser

    # The contract, for the type checker: these classes answer it.
    CODECS: tuple[type[Codec], ...] = (VQVAE, HierarchicalVQVAE, AudioVQVAE, WithDecoder, WithPictureDecoder)
    OTHERS: tuple[type[Stage1Model], ...] = (VAE, Autoencoder, VIMCO, AudioVAE, AudioAutoencoder)

__all__ = [
    "VAE",
    "VIMCO",
    "VQVAE",
    "AudioAutoencoder",
    "AudioVAE",
    "AudioVQVAE",
    "Autoencoder",
    "HierarchicalVQVAE",
    "PictureDecoder",
    "Quantised",
    "VectorQuantiser",
    "WaveNetDecoder",
    "WithDecoder",
    "WithPictureDecoder",
]

_HOME = {
    "AudioAutoencoder": "stage1_vqvae.audio.autoencoder",
    "AudioVAE": "stage1_vqvae.audio.vae",
    "AudioVQVAE": "stage1_vqvae.audio.vqvae",
    "Autoencoder": "stage1_vqvae.images.autoencoder",
    "HierarchicalVQVAE": "stage1_vqvae.images.hierarchy",
    "PictureDecoder": "stage1_vqvae.images.picture_decoder",
    "VAE": "stage1_vqvae.images.vae",
    "VIMCO": "stage1_vqvae.images.vimco",
    "VQVAE": "stage1_vqvae.images.vqvae",
    "Quantised": "stage1_vqvae.quantiser.interface",
    "VectorQuantiser": "stage1_vqvae.quantiser.quantiser",
    "WaveNetDecoder": "stage1_vqvae.audio.wavenet_decoder",
    "WithDecoder": "stage1_vqvae.audio.with_decoder",
    "WithPictureDecoder": "stage1_vqvae.images.with_picture",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
