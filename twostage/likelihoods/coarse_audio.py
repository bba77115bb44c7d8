"""A likelihood of sound for data sets in which some recordings use a coarse grid of the 16-bit levels alone.

Recordings of 8 bits that are stored in 16 hold multiples of 256 only. Over 65536 levels, a smooth mass function pays
for the 8 bits between two such levels at every sample. Here a sample is, with a probability that the features say, one
of the `2^(16 - K)` multiples of `2^K`, drawn from a mixture of logistics over these, and otherwise any of the 65536
levels:

    p(x) = w [x on the grid] p_coarse(x / 2^K) + (1 - w) p_fine(x)

Both are mass functions, hence so is p. A network that knows whether all samples so far were on the grid sets w to 0
where they were not, and learns the rest. Lossless codecs know this as "wasted bits" (FLAC, RFC 9639, section 9.2.2) and
say it in a header; here nothing has to be transmitted.

Shapes: B items, F features, S samples, L fine levels, N samples that may be on the grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from twostage.likelihoods.audio import SAMPLE_LEVELS, AudioLikelihood
from twostage.likelihoods.images import draw_levels
from twostage.likelihoods.logistic_mixture import LogisticMixtureLikelihood

_BELOW_ONE = 1.0 - 2.0**-53


class CoarseAudioLikelihood(AudioLikelihood):
    """The relative logistic mixture over 65536 levels, and one over multiples of `2^K`.

    Args:
        features: F. The last three of a sample are the logit of w, minus infinity where it cannot be on the grid, and
            centre and unit as of `AudioLikelihood`, which both mixtures count from.
        mixtures: components of either mixture.
        coarse_bits: K, 1 to 15.
    """

    def __init__(self, *, features: int, mixtures: int, coarse_bits: int) -> None:
        super().__init__("logistic-mixture", features=features - 1, mixtures=mixtures, relative=True)
        self.step = 2**coarse_bits
        self.coarse = LogisticMixtureLikelihood(
            features=features - 1,
            channels=1,
            levels=SAMPLE_LEVELS // self.step,
            mixtures=mixtures,
            start_spread=1.0,
            start_log_scales=(0.0, 0.0),
            frame="given",
        )

    def log_prob(self, features_BFS: Tensor, samples_BS: Tensor) -> Tensor:
        """Log-mass of every int16 sample, nats, `[B, S]`, fp32."""
        logit_BS, fine_BFS = self._split(features_BFS)
        log_prob_BS = super().log_prob(fine_BFS, samples_BS)
        may_BS = logit_BS > -torch.inf
        if not bool(may_BS.any()):
            return log_prob_BS
        with torch.autocast(features_BFS.device.type, enabled=False):
            level_N, logit_N = self.levels_of(samples_BS[may_BS]), logit_BS[may_BS]
            image_1F1N = self._coarse_image(fine_BFS.transpose(1, 2)[may_BS].T[None])
            coarse_N = self.coarse.log_prob(image_1F1N, (level_N // self.step)[None, None, None])[0, 0, 0]
            fine_N = F.logsigmoid(-logit_N) + log_prob_BS[may_BS]
            both_N = torch.logaddexp(F.logsigmoid(logit_N) + coarse_N, fine_N)
            return log_prob_BS.index_put((may_BS,), torch.where(level_N % self.step == 0, both_N, fine_N))

    def probabilities(self, features_BFS: Tensor) -> Tensor:
        """Masses of all levels, `[B, S, L]`, fp32."""
        logit_BS, fine_BFS = self._split(features_BFS)
        share_BS1 = logit_BS.sigmoid()[:, :, None]
        mass_BSL = super().probabilities(fine_BFS) * (1.0 - share_BS1)
        with torch.autocast(features_BFS.device.type, enabled=False):
            image_BF1S = self._coarse_image(fine_BFS)
            none_B11S = torch.zeros_like(image_BF1S[:, :1], dtype=torch.int64)
            mass_BSL[..., :: self.step] += share_BS1 * self.coarse.probabilities(image_BF1S, none_B11S)[:, 0, 0]
        return mass_BSL

    @torch.no_grad()
    def draw(self, features_BFS: Tensor, uniform_BS: Tensor, *, temperature: float = 1.0) -> Tensor:
        """int16 samples `[B, S]`; a uniform number below w draws from the grid by its place below w, and so on.

        Args:
            features_BFS, uniform_BS: as of `AudioLikelihood.draw`.
            temperature: above 0; it divides the logit, too.
        """
        logit_BS, fine_BFS = self._split(features_BFS)
        share_BS = (logit_BS / temperature).double().sigmoid()
        on_grid_BS = uniform_BS < share_BS
        fine_BS = ((uniform_BS - share_BS) / (1.0 - share_BS)).masked_fill(on_grid_BS, 0.0).clamp(0.0, _BELOW_ONE)
        drawn_BS = super().draw(fine_BFS, fine_BS, temperature=temperature)
        if not bool(on_grid_BS.any()):
            return drawn_BS
        with torch.autocast(features_BFS.device.type, enabled=False):
            coarse_B11S = (uniform_BS / share_BS).masked_fill(~on_grid_BS, 0.0).clamp(max=_BELOW_ONE)[:, None, None]
            level_B11S = draw_levels(self.coarse, self._coarse_image(fine_BFS), coarse_B11S, temperature=temperature)
            return torch.where(on_grid_BS, self.samples_of(level_B11S[:, 0, 0] * self.step), drawn_BS)

    @staticmethod
    def _split(features_BFS: Tensor) -> tuple[Tensor, Tensor]:
        """The logit of w in fp32, and the features of either mixture."""
        return features_BFS[:, -3].float(), torch.cat([features_BFS[:, :-3], features_BFS[:, -2:]], dim=1)

    def _coarse_image(self, features_BFS: Tensor) -> Tensor:
        """Features whose centre is brought from sample / 32768 to the alphabet of the grid."""
        levels = self.coarse.levels
        centre_B1S = (features_BFS[:, -2:-1] * levels + 1.0) / (levels - 1)
        return self._image(torch.cat([features_BFS[:, :-2], centre_B1S, features_BFS[:, -1:]], dim=1))
