"""From latents to p(x|z): decoder, optionally a shallow autoregressive network over the pixels, likelihood.

Without it pixels are independent given z, and the latents must carry every detail. With it, a few gated causal layers
(`twostage.layers.causal`) read the pixels before the current one, and the decoder's features enter the first layer's
gates and the output as a map (van den Oord et al. 2016, section 2.3). The receptive field is kept small on purpose:
local texture is cheap to model from neighbours, while everything further away is left to the latents (Gulrajani et al.
2017, PixelVAE, arXiv 1611.05013; Chen et al. 2017, arXiv 1611.02731). The nearest pixels also go to the likelihood
unchanged, so that a linear prediction from them, which is most of what lossless codecs do, need not be learned through
the gates. Sampling walks the pixels with the cached step.

An autoregressive decoder learns to do without the latents long before the encoder has made them useful. Against that,
training may add an auxiliary likelihood on the decoder's features alone (Lucas and Verbeek 2018, arXiv 1711.11479),
which only the latents can serve; it has no part in p(x|z).

Without it a mixture learns its mean slowly, because channels that are given say most of what the others are. Against
that, training may add a squared error of the mean (`mean_weight`), the log-density of a Gaussian around it with the
variance 1 / weight: it counts while the mixture is about as wide as that Gaussian, and for little once it is narrower.

Shapes: B items, D latent channels, h x w grid, F features, S hidden features, C x H x W image, N = C x neighbours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.images.networks import Decoder, ImageNetworks, normalise
from twostage.errors import UsageError
from twostage.layers.causal import GatedStack
from twostage.layers.causal_step import GatedStackState
from twostage.likelihoods.images import AnyLikelihood, draw_levels, make_likelihood
from twostage.noise import uniform_noise

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
"""(rows up, columns left) of the pixels handed on: left, above, above left, above right, two left, two above."""


class PixelNetwork(nn.Module):
    """Features of every pixel from the decoder's features and the pixels before it.

    Args:
        image_channels: C.
        levels: L, size of the alphabet.
        features: F, channels of the decoder's features.
        layers: gated layers.
        channels: width of both stacks; S is twice that. `out_features` is S + N.
        kernel: kernel side of the first layer, later ones have 3.
    """

    def __init__(
        self, *, image_channels: int, levels: int, features: int, layers: int, channels: int, kernel: int
    ) -> None:
        super().__init__()
        self.levels, hidden = levels, 2 * channels
        self.out_features = hidden + len(NEIGHBOURS) * image_channels
        # A channel of ones beside the pixel tells the border from a pixel of mean brightness.
        self.embedding = nn.Conv2d(image_channels + 1, channels, 1)
        self.map = nn.Conv2d(features, 4 * channels, 1)
        self.stack = GatedStack(
            channels=channels,
            skip_channels=hidden,
            layers=layers,
            first_kernel=kernel,
            kernel=3,
            dropout=0.0,
        )
        self.skip = nn.Conv2d(features, hidden, 1)
        self.hidden = nn.Conv2d(hidden, hidden, 1)

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Integer pixels to the stack's inputs: one hidden layer per pixel."""
        scaled_BCHW = normalise(x_BCHW, self.levels)
        return F.relu(self.embedding(torch.cat([scaled_BCHW, torch.ones_like(scaled_BCHW[:, :1])], 1)))

    def neighbours(self, x_BCHW: Tensor) -> Tensor:
        """`[B, N, H, W]`: the `NEIGHBOURS` of every pixel scaled to [-1, 1], zero outside the image."""
        scaled_BCHW = normalise(x_BCHW, self.levels)
        height, width = scaled_BCHW.shape[2:]
        padded = F.pad(scaled_BCHW, (2, 1, 2, 0))
        views = [padded[..., 2 - up : 2 - up + height, 2 - left : 2 - left + width] for up, left in NEIGHBOURS]
        return torch.cat(views, 1)

    def head(self, causal_BSHW: Tensor, skip_BSHW: Tensor, neighbours_BNHW: Tensor) -> Tensor:
        """Features for the likelihood from the stack's output, the decoder's share and the nearest pixels."""
        hidden_BSHW = F.relu(self.hidden(F.relu(causal_BSHW + skip_BSHW)))
        return torch.cat([hidden_BSHW.float(), neighbours_BNHW], 1)

    def forward(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """`[B, S + N, H, W]`; at a pixel a function of all decoder features and of earlier pixels only."""
        causal_BSHW = self.stack(self.embed(x_BCHW), map_BDHW=self.map(features_BFHW))
        return self.head(causal_BSHW, self.skip(features_BFHW), self.neighbours(x_BCHW))


class PixelDecoder(nn.Module):
    """p(x|z) over integer images, shared by all models of images.

    Args:
        settings: the model's; what the encoder needs beside the decoder is not read.
        in_channels: D, latent channels.
        auxiliary_weight: weight of the auxiliary likelihood in `training_nats`, read with an autoregressive decoder
            only; 0: none.

    Raises:
        UsageError: the likelihood does not exist, does not fit the alphabet, or `mean_weight` is not for this decoder.
    """

    def __init__(self, settings: ImageNetworks, *, in_channels: int, auxiliary_weight: float = 0.0) -> None:
        super().__init__()
        self.image_shape, self.auxiliary_weight = settings.image_shape, auxiliary_weight
        head_channels, layers = settings.head_channels, settings.autoregressive_layers
        alphabet = {"channels": settings.image_shape[0], "levels": settings.levels}
        self.network = Decoder(settings, in_channels=in_channels, features=head_channels)
        self.pixels: PixelNetwork | None = None
        if layers:
            self.pixels = PixelNetwork(
                image_channels=settings.image_shape[0],
                levels=settings.levels,
                features=head_channels,
                layers=layers,
                channels=settings.autoregressive_channels,
                kernel=settings.autoregressive_kernel,
            )
        features = head_channels if self.pixels is None else self.pixels.out_features
        self.likelihood = make_likelihood(
            settings.likelihood, features=features, mixtures=settings.mixtures, **alphabet
        )
        self.mean_weight = settings.mean_weight
        if self.mean_weight and (layers or settings.likelihood != "logistic-mixture"):
            raise UsageError(
                "mean_weight is for logistic-mixture without autoregressive layers, not for "
                f"{settings.likelihood} with {layers} of them: set it to 0"
            )
        self.auxiliary: AnyLikelihood | None = None
        if layers and auxiliary_weight:
            # One component is enough to ask for; ten would cost as much as the likelihood itself.
            self.auxiliary = make_likelihood(settings.likelihood, features=head_channels, mixtures=1, **alphabet)

    @property
    def autoregressive(self) -> bool:
        """Whether pixels depend on the pixels before them; there is no mean image then, only samples."""
        return self.pixels is not None

    def _log_prob(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        if self.pixels is not None:
            features_BFHW = self.pixels(features_BFHW, x_BCHW)
        return self.likelihood.log_prob(features_BFHW, x_BCHW)

    def log_prob(self, z_BDHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """log p of every sub-pixel of integer images in nats, `[B, C, H, W]`, fp32; the sum is log p(x|z)."""
        return self._log_prob(self.network(z_BDHW), x_BCHW)

    def training_nats(self, z_BDHW: Tensor, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x|z) in nats, `[B]`, fp32, and what training adds to it before it maximises the sum, `[B]`.

        That is the weighted auxiliary likelihood of an autoregressive decoder, or minus half of `mean_weight` times the
        squared error of the mean, the alphabet scaled to [-1, 1] and summed over all sub-pixels; else zero.
        """
        features_BFHW = self.network(z_BDHW)
        log_prob_B = self._log_prob(features_BFHW, x_BCHW).flatten(1).sum(1)
        if self.auxiliary is not None:
            return log_prob_B, self.auxiliary_weight * self.auxiliary.log_prob(features_BFHW, x_BCHW).flatten(1).sum(1)
        if self.mean_weight:
            mean_BCHW, levels = self.likelihood.mean(features_BFHW), self.likelihood.levels
            error_BCHW = normalise(x_BCHW, levels) - normalise(mean_BCHW, levels)
            return log_prob_B, -0.5 * self.mean_weight * error_BCHW.square().flatten(1).sum(1)
        return log_prob_B, torch.zeros_like(log_prob_B)

    @torch.no_grad()
    def decode(self, z_BDHW: Tensor, *, seed: int, first_item: int) -> Tensor:
        """Images `[B, C, H, W]` in levels, fp32: the mean of p(x|z), or a sample from an autoregressive decoder.

        A sample is that of items `first_item` .. `first_item + B - 1` under `seed`, whatever the batch.
        """
        features_BFHW = self.network(z_BDHW)
        if self.pixels is None:
            return self.likelihood.mean(features_BFHW)
        return self._sample(self.pixels, features_BFHW, seed=seed, first_item=first_item).float()

    def _sample(self, pixels: PixelNetwork, features_BFHW: Tensor, *, seed: int, first_item: int) -> Tensor:
        channels, height, width = self.image_shape
        count = len(features_BFHW)
        symbols = channels * height * width
        noise = uniform_noise(seed=seed, first_item=first_item, count=count, symbols=symbols, stream=1)
        noise_BCHW = noise.view(count, height, width, channels).permute(0, 3, 1, 2).to(features_BFHW.device)
        skip_BSHW = pixels.skip(features_BFHW)
        map_BDHW = pixels.map(features_BFHW)
        state = GatedStackState(pixels.stack, batch_size=count, grid=(height, width), map_BDHW=map_BDHW)
        x_BCHW = torch.zeros(count, channels, height, width, dtype=torch.int64, device=features_BFHW.device)
        embedded_BC = None
        for row in range(height):
            for column in range(width):
                here = (..., slice(row, row + 1), slice(column, column + 1))
                causal_BS11 = state.advance(embedded_BC)[:, :, None, None]
                # Three rows and four columns hold all neighbours.
                top, left = max(row - 2, 0), max(column - 2, 0)
                near_BNHW = pixels.neighbours(x_BCHW[..., top : row + 1, left : column + 2])
                neighbours_BN11 = near_BNHW[..., row - top, column - left, None, None]
                features_BX11 = pixels.head(causal_BS11, skip_BSHW[here], neighbours_BN11)
                x_BCHW[here] = draw_levels(self.likelihood, features_BX11, noise_BCHW[here])
                embedded_BC = pixels.embed(x_BCHW[here])[:, :, 0, 0]
        return x_BCHW
