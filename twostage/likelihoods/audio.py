"""Likelihoods p(x|z) of sound: mass functions over the levels of a 16-bit sample, features in and nats out.

Two alphabets (van den Oord et al. 2016, WaveNet, arXiv 1609.03499, section 2.2; van den Oord et al. 2017, Parallel
WaveNet, arXiv 1711.10433, section 2):

- `mu-law`: a softmax over the 256 levels of `twostage.data.audio.mulaw`; what 16 bits hold beyond them is lost, so its
  bits per sample must never stand beside those of
- `logistic-mixture`: 65536 levels, every 16-bit sample its own, by a discretised mixture of logistics.

Both are the likelihoods of images with one row and one channel (`twostage.likelihoods`,
`twostage.likelihoods.logistic_mixture`). The mixture starts where sound is: quiet, hence around 0 and narrow. On spoken
digits an untrained one then takes 13.4 bits per sample, and 16.3 with the start of images, spread over the whole
alphabet.

All of it is fp32, also under autocast.

Shapes: B items, F features, S samples, L levels.
"""

import numpy as np
import torch
from torch import Tensor, nn

from twostage.data.audio import mulaw
from twostage.errors import UsageError
from twostage.likelihoods.images import CategoricalLikelihood, draw_levels
from twostage.likelihoods.logistic_mixture import LogisticMixtureLikelihood

AUDIO_LIKELIHOODS = ("mu-law", "logistic-mixture")
SAMPLE_LEVELS = 65536
_LOWEST = -32768
_START_SPREAD, _START_LOG_SCALES = 0.1, (-4.0, -4.0)
_RELATIVE_SPREAD, _RELATIVE_LOG_SCALES = 1.0, (0.0, 0.0)
# Weights of the usual size move the locations by more than their spread, a dozen scales away from silence. Relative
# locations they move by a unit, and with smaller ones the features come to matter late.
_START_WEIGHTS = 0.1


class AudioLikelihood(nn.Module):
    """p(x|z) of every 16-bit sample, independent given the features.

    Args:
        name: `mu-law` or `logistic-mixture`.
        features: F, channels of the decoder's output.
        mixtures: components of the mixture; the other does not read it.
        relative: for the mixture alone: the last two features of a sample are a centre in [-1, 1] and the logarithm of
            a unit; locations count from that centre, in that unit, and so do scales. An autoregressive network says so
            what it expects and how loud it is; otherwise a linear layer would have to say locations to the precision
            of the narrowest scale.

    Raises:
        UsageError: another name, or mu-law and `relative`.
    """

    def __init__(self, name: str, *, features: int, mixtures: int = 10, relative: bool = False) -> None:
        super().__init__()
        if name not in AUDIO_LIKELIHOODS:
            raise UsageError(f"the likelihood of sound must be one of {', '.join(AUDIO_LIKELIHOODS)}, not {name!r}")
        if relative and name == "mu-law":
            raise UsageError("levels of mu-law have no locations: only the likelihood logistic-mixture can be relative")
        self.name = name
        self.levels = mulaw.LEVELS if name == "mu-law" else SAMPLE_LEVELS
        self.pixels: CategoricalLikelihood | LogisticMixtureLikelihood
        if name == "mu-law":
            self.pixels = CategoricalLikelihood(features=features, channels=1, levels=self.levels)
            self.register_buffer("level_of_sample", _table(mulaw.level_table(), torch.int64), persistent=False)
            self.register_buffer("sample_of_level", _table(mulaw.sample_table(), torch.int16), persistent=False)
        else:
            self.pixels = LogisticMixtureLikelihood(
                features=features,
                channels=1,
                levels=self.levels,
                mixtures=mixtures,
                start_spread=_RELATIVE_SPREAD if relative else _START_SPREAD,
                start_log_scales=_RELATIVE_LOG_SCALES if relative else _START_LOG_SCALES,
                frame="given" if relative else "none",
            )
            if not relative:
                with torch.no_grad():
                    self.pixels.project.weight.mul_(_START_WEIGHTS)

    def levels_of(self, samples: Tensor) -> Tensor:
        """Levels 0..L-1, int64, of int16 samples; any shape, any device."""
        places = samples.long() - _LOWEST
        if self.name == "mu-law":
            return self.get_buffer("level_of_sample").to(samples.device)[places]
        return places

    def samples_of(self, levels: Tensor) -> Tensor:
        """int16 samples of levels 0..L-1; any shape, any device. The inverse of `levels_of` for 65536 levels."""
        if self.name == "mu-law":
            return self.get_buffer("sample_of_level").to(levels.device)[levels.long()]
        return (levels.long() + _LOWEST).to(torch.int16)

    def log_prob(self, features_BFS: Tensor, samples_BS: Tensor) -> Tensor:
        """Log-mass of the level of every int16 sample, nats, `[B, S]`, fp32."""
        with torch.autocast(features_BFS.device.type, enabled=False):
            levels_B11S = self.levels_of(samples_BS)[:, None, None]
            return self.pixels.log_prob(self._image(features_BFS), levels_B11S)[:, 0, 0]

    def probabilities(self, features_BFS: Tensor) -> Tensor:
        """Masses of all levels, `[B, S, L]`, fp32: 256 KiB per sample and component of the mixture."""
        with torch.autocast(features_BFS.device.type, enabled=False):
            features_BF1S = self._image(features_BFS)
            none_B11S = torch.zeros_like(features_BF1S[:, :1], dtype=torch.int64)  # there are no earlier channels
            return self.pixels.probabilities(features_BF1S, none_B11S)[:, 0, 0]

    @torch.no_grad()
    def draw(self, features_BFS: Tensor, uniform_BS: Tensor, *, temperature: float = 1.0) -> Tensor:
        """int16 samples `[B, S]` at which the distribution function first exceeds the uniform numbers.

        Args:
            features_BFS: what the decoder says.
            uniform_BS: float64, one number in [0, 1) per sample; the same numbers give the same samples.
            temperature: above 0; see `draw_levels`.
        """
        with torch.autocast(features_BFS.device.type, enabled=False):
            image_BF1S, uniform_B11S = self._image(features_BFS), uniform_BS[:, None, None]
            levels_B11S = draw_levels(self.pixels, image_BF1S, uniform_B11S, temperature=temperature)
            return self.samples_of(levels_B11S[:, 0, 0])

    def _image(self, features_BFS: Tensor) -> Tensor:
        """The features of a picture one pixel high, in the precision of the weights."""
        weight = next(self.pixels.parameters())
        return features_BFS[:, :, None].to(weight.dtype)


def make_audio_likelihood(name: str, *, features: int, mixtures: int = 10, relative: bool = False) -> AudioLikelihood:
    """The likelihood of sound of that name; see `AudioLikelihood`."""
    return AudioLikelihood(name, features=features, mixtures=mixtures, relative=relative)


def _table(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(values.copy()).to(dtype)
