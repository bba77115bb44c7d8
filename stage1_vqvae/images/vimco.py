"""Discrete latents trained by VIMCO (Mnih and Rezende 2016, arXiv 1602.06725), a baseline for the VQ-VAE.

The latents have the VQ-VAE's shape: G codes out of K at each of h x w positions, embedded and decoded by the VQ-VAE's
decoder. But q(z|x) is a distribution, a softmax at every position independent of the others, and no gradient is copied
past a choice. With k samples z_i of q and weights w_i = p(x|z_i) p(z_i) / q(z_i|x), training maximises the bound
L = log(1/k sum_i w_i) of eq. 3. Its gradient (eq. 5 to 7) has two parts: w_i-weighted gradients of log w_i, and the
score part sum_i (L - L_-i) grad log q(z_i|x). L_-i is the bound with log w_i replaced by the mean of the others' (the
geometric mean of eq. 6): it knows nothing of sample i, so the estimate stays unbiased, and what is left as a learning
signal is only what sample i adds.

The prior p(z) that is trained along is factorised, a table of K probabilities per codebook and position. Departure from
the paper, whose latents are binary layers with priors between them: a grid of codes gets a better prior afterwards, as
in the VQ-VAE. `bounds` takes any log p(z) in the place of the table; one fitted to `sample_codes` of training images
tightens the bound most, because the bound's codes are drawn from q, not its modes.

Departures in use: no auxiliary likelihood under autoregressive decoders, since the score part would need its share. The
squared error of `mean_weight` has none either: the decoder learns from it, q does not.

Shapes: B items, S samples, C x H x W image, G codebooks of K codes, h x w grid, D embedding channels, X = S B.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

import torch
from einops import rearrange
from torch import Tensor, nn

from stage1_vqvae.batch import Asked, Batch, Score
from stage1_vqvae.images.model import ImageModel
from stage1_vqvae.images.networks import Encoder, ImageNetworks, ImageNetworkSettings, check_images, normalise
from stage1_vqvae.images.pixel_decoder import PixelDecoder
from stage1_vqvae.interface import LatentKind
from twostage.categorical import draw
from twostage.errors import UsageError
from twostage.noise import batch_uniform, uniform_noise
from twostage.storage.from_folder import FromFolder

NOISE_STREAM = 3
"""Draws of codes given images share no numbers with draws of codes, pixels and ends under the same seed."""


def multi_sample_bound(log_weights_SB: Tensor) -> Tensor:
    """L = log(1/k sum_i w_i) of every item, `[B]`, in nats (eq. 3)."""
    return log_weights_SB.logsumexp(0) - math.log(len(log_weights_SB))


def learning_signals(log_weights_SB: Tensor) -> Tensor:
    """L - L_-i of every sample, `[S, B]`, without gradient (eq. 6 and 7); at least two samples."""
    log_weights_SB = log_weights_SB.detach()
    samples = len(log_weights_SB)
    others_SB = (log_weights_SB.sum(0) - log_weights_SB) / (samples - 1)
    replaced_SSB = log_weights_SB.repeat(samples, 1, 1)  # [which one is replaced, sample, item]
    replaced_SSB.diagonal(dim1=0, dim2=1).copy_(others_SB.T)
    left_out_SB = replaced_SSB.logsumexp(1) - math.log(samples)
    return multi_sample_bound(log_weights_SB) - left_out_SB


def vimco_objective(log_joint_SB: Tensor, log_posterior_SB: Tensor) -> Tensor:
    """What training maximises, `[B]`: in value the bound L, in gradient the estimate of eq. 5 with eq. 7.

    Args:
        log_joint_SB: log p(x, z_i) in nats, with gradient to the decoder and the prior.
        log_posterior_SB: log q(z_i|x) in nats, with gradient to the encoder.
    """
    log_weights_SB = log_joint_SB - log_posterior_SB
    score_SB = log_posterior_SB - log_posterior_SB.detach()  # zero, but for its gradient
    return multi_sample_bound(log_weights_SB) + (learning_signals(log_weights_SB) * score_SB).sum(0)


@dataclass(frozen=True)
class VIMCOOutput:
    """One pass over a batch."""

    loss: Tensor
    """Scalar to minimise: minus the bound in nats/dim, and what the decoder adds in training."""
    bound_nats: Tensor
    """`[B]`, the multi-sample bound on log p(x), fp32."""
    log_likelihood_nats: Tensor
    """`[B]`, log p(x|z), the mean over the samples, fp32."""


@dataclass(frozen=True)
class VIMCOBounds:
    """Bounds on log p(x) in nats, each `[B]`, fp32, from the same samples."""

    multi_sample: Tensor
    """L with k samples (eq. 3)."""
    elbo: Tensor
    """The bound of one sample: the difference of the two below."""
    log_likelihood: Tensor
    """Mean of log p(x|z) over the samples; its negative is the distortion."""
    kl: Tensor
    """KL of q(z|x) from p(z), the rate: exact under the model's own factorised prior, whose sum runs over positions;
    under another one the mean of log q(z|x) - log p(z) over the samples, an estimate."""


class VIMCO(FromFolder, ImageModel):
    """Categorical latent variable model of integer images.

    Args:
        embedding_dim, codebook_size, codebooks: D, K and G; the embedding is split into G equal parts.
        samples: k of the training bound, at least 2; the paper used 50. A step decodes k times.
        networks: see `ImageNetworks`.

    Raises:
        UsageError: the sizes do not fit one another; later, images are not integers 0..levels-1 of `image_shape`.
    """

    kinds = ("vimco",)

    latents: LatentKind = "table"
    beta: None = None
    offset_G11: Tensor

    def __init__(
        self,
        *,
        embedding_dim: int = 64,
        codebook_size: int = 512,
        codebooks: int = 1,
        samples: int = 10,
        **networks: Unpack[ImageNetworkSettings],
    ) -> None:
        if codebook_size < 1 or codebooks < 1 or embedding_dim < 1 or embedding_dim % codebooks:
            raise UsageError(
                "expected codebook_size >= 1 and an embedding_dim that codebooks divides, got "
                f"{codebook_size=}, {embedding_dim=}, {codebooks=}: change one of them"
            )
        if samples < 2:
            raise UsageError(f"VIMCO compares samples with one another and needs at least 2, not {samples}")
        settings = ImageNetworks(**networks)
        super().__init__(settings)
        self.samples = samples
        self.code_shape = (codebooks, *settings.grid)
        self.codebook_size = codebook_size
        self.encoder = Encoder(settings, in_channels=settings.image_shape[0], out_channels=codebooks * codebook_size)
        self.embedding = nn.Embedding(codebooks * codebook_size, embedding_dim // codebooks)
        self.register_buffer("offset_G11", torch.arange(codebooks)[:, None, None] * codebook_size, persistent=False)
        self.prior_logits = nn.Parameter(torch.zeros(*self.code_shape, codebook_size))
        self.decoder = PixelDecoder(settings, in_channels=embedding_dim)

    def posterior(self, x_BCHW: Tensor) -> Tensor:
        """log q(z|x) of every code at every position in nats, `[B, G, h, w, K]`, fp32."""
        check_images(x_BCHW, self.image_shape, self.levels)
        logits = self.encoder(normalise(x_BCHW, self.levels)).float()
        return rearrange(logits, "b (g k) h w -> b g h w k", k=self.codebook_size).log_softmax(-1)

    def log_prior(self, codes_XGHW: Tensor) -> Tensor:
        """log p(z) in nats under the factorised prior, `[X]`, fp32."""
        log_prior_GHWK = self.prior_logits.float().log_softmax(-1)
        return _pick(log_prior_GHWK.expand(len(codes_XGHW), -1, -1, -1, -1), codes_XGHW[..., None])[0]

    def _lookup(self, codes_XGHW: Tensor) -> Tensor:
        return rearrange(self.embedding(codes_XGHW + self.offset_G11), "x g h w d -> x (g d) h w")

    def _log_likelihood(self, x_XCHW: Tensor, codes_XGHW: Tensor) -> Tensor:
        return self.decoder.log_prob(self._lookup(codes_XGHW), x_XCHW).flatten(1).sum(1)

    def forward(self, x_BCHW: Tensor) -> VIMCOOutput:
        """Training loss of a batch of integer images, `samples` draws each by `twostage.noise.batch_uniform`."""
        log_q_BGHWK = self.posterior(x_BCHW)
        noise_BGHWS = batch_uniform(len(x_BCHW), *self.code_shape, self.samples, device=x_BCHW.device)
        codes_BGHWS = self._invert(log_q_BGHWK.detach(), noise_BGHWS)
        codes_XGHW = rearrange(codes_BGHWS, "b g h w s -> (s b) g h w")
        x_XCHW = x_BCHW.repeat(self.samples, 1, 1, 1)
        parts = self.decoder.training_nats(self._lookup(codes_XGHW), x_XCHW)
        log_likelihood_SB, added_SB = (nats_X.view(self.samples, -1) for nats_X in parts)
        log_joint_SB = log_likelihood_SB + self.log_prior(codes_XGHW).view(self.samples, -1)
        objective_B = vimco_objective(log_joint_SB, _pick(log_q_BGHWK, codes_BGHWS))
        return VIMCOOutput(
            loss=-(objective_B + added_SB.mean(0)).mean() / self.dims,
            bound_nats=objective_B.detach(),
            log_likelihood_nats=log_likelihood_SB.detach().mean(0),
        )

    @torch.no_grad()
    def bounds(
        self,
        x_BCHW: Tensor,
        *,
        samples: int,
        seed: int,
        first_item: int = 0,
        log_prior: Callable[[Tensor], Tensor] | None = None,
    ) -> VIMCOBounds:
        """Bounds from `samples` draws of q per item.

        Args:
            x_BCHW: integer images, items `first_item` .. `first_item + B - 1` of a data set.
            samples: k; those of a smaller k are the first of a larger one.
            seed: item i draws from (seed, i) alone, so that the batch size changes nothing.
            first_item: number of the first image.
            log_prior: log p(z) in nats, `[B]`, of codes `[B, G, h, w]`; the model's own factorised prior unless given.
        """
        own, log_prior = log_prior is None, log_prior or self.log_prior
        log_q_BGHWK = self.posterior(x_BCHW)
        codes_BGHWS = self._draw(log_q_BGHWK, samples=samples, seed=seed, first_item=first_item)
        log_q_SB = _pick(log_q_BGHWK, codes_BGHWS)
        drawn = [codes_BGHWS[..., sample] for sample in range(samples)]
        log_likelihood_SB = torch.stack([self._log_likelihood(x_BCHW, codes_BGHW) for codes_BGHW in drawn])
        log_ratio_SB = log_q_SB - torch.stack([log_prior(codes_BGHW).float() for codes_BGHW in drawn])
        log_likelihood_B = log_likelihood_SB.mean(0)
        kl_B = self._kl(log_q_BGHWK) if own else log_ratio_SB.mean(0)
        return VIMCOBounds(
            multi_sample=multi_sample_bound(log_likelihood_SB - log_ratio_SB),
            elbo=log_likelihood_B - kl_B,
            log_likelihood=log_likelihood_B,
            kl=kl_B,
        )

    def _kl(self, log_q_BGHWK: Tensor) -> Tensor:
        """KL of q(z|x) from the model's prior in nats, `[B]`, fp32: a sum over positions, as both are factorised."""
        log_ratio_BGHWK = log_q_BGHWK.double() - self.prior_logits.double().log_softmax(-1)
        return (log_q_BGHWK.double().exp() * log_ratio_BGHWK).sum((1, 2, 3, 4)).float()

    def _draw(self, log_q_BGHWK: Tensor, *, samples: int, seed: int, first_item: int) -> Tensor:
        """Codes `[B, G, h, w, S]` by inversion of the distribution function at (seed, item)'s own numbers."""
        shape = (samples, *self.code_shape)
        noise = uniform_noise(
            seed=seed, first_item=first_item, count=len(log_q_BGHWK), symbols=math.prod(shape), stream=NOISE_STREAM
        )
        noise_BGHWS = noise.view(-1, *shape).movedim(1, -1).contiguous().to(log_q_BGHWK.device)
        return self._invert(log_q_BGHWK, noise_BGHWS)

    def _invert(self, log_q_BGHWK: Tensor, noise_BGHWS: Tensor) -> Tensor:
        """The codes at which the distribution function passes the noise, which counts in parts of its total."""
        cumulative_BGHWK = log_q_BGHWK.double().exp().cumsum(-1)
        # Below the total, which rounding leaves beside one: `right` then finds a code, and never one without mass. Only
        # masses that are not finite go past the end; that such a training diverged is said elsewhere.
        target_BGHWS = noise_BGHWS.double() * cumulative_BGHWK[..., -1:]
        return torch.searchsorted(cumulative_BGHWK, target_BGHWS, right=True).clamp(max=self.codebook_size - 1)

    @torch.no_grad()
    def sample_codes(self, x_BCHW: Tensor, *, seed: int, first_item: int = 0) -> Tensor:
        """One draw of q(z|x) per image, `[B, G, h, w]`, int64: the first of those in `bounds`."""
        return self._draw(self.posterior(x_BCHW), samples=1, seed=seed, first_item=first_item)[..., 0]

    @torch.no_grad()
    def encode(self, x_BCHW: Tensor) -> Tensor:
        """The most probable codes under q(z|x), `[B, G, h, w]`, int64: a deterministic code, as of the VQ-VAE."""
        return self.posterior(x_BCHW).argmax(-1)

    def decoder_input(self, codes_BGHW: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """Embeddings of codes, `[B, D, h, w]`."""
        unfit = codes_BGHW.dtype != torch.int64 or tuple(codes_BGHW.shape[1:]) != self.code_shape
        if unfit or (codes_BGHW.numel() and not 0 <= codes_BGHW.min() <= codes_BGHW.max() < self.codebook_size):
            raise UsageError(
                f"expected int64 codes [batch, {', '.join(map(str, self.code_shape))}] from 0 to "
                f"{self.codebook_size - 1}, got {codes_BGHW.dtype} {tuple(codes_BGHW.shape)}: pass codes of this model"
            )
        return self._lookup(codes_BGHW)

    def score(self, batch: Batch, *, samples: int, seed: int) -> Score:
        """See `Stage1Model`: `bounds` under the model's own factorised prior."""
        bounds = self.bounds(batch.x, samples=samples, seed=seed, first_item=batch.first_item)
        return Score(distortion=-bounds.log_likelihood, rate=bounds.kl, tighter=-bounds.multi_sample)

    def point_latents(self, x_BCHW: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """The most probable codes."""
        return self.encode(x_BCHW)

    @torch.no_grad()
    def sample_latents(
        self, asked: Asked, *, seed: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
    ) -> Tensor:
        """Codes `[B, G, h, w]` from the factorised prior: no code knows of another.

        `temperature`, `top_k` and `top_p` shape the table at every position, see `twostage.categorical`.
        """
        logits_LK = self.prior_logits.float().flatten(0, -2)
        count, symbols = len(asked.items), len(logits_LK)
        noise_BL = uniform_noise(seed=seed, first_item=asked.first_item, count=count, symbols=symbols)
        drawn = [
            draw(logits_K.expand(count, -1), noise_B, temperature=temperature, top_k=top_k, top_p=top_p)
            for logits_K, noise_B in zip(logits_LK, noise_BL.to(logits_LK.device).T.contiguous(), strict=True)
        ]
        return torch.stack(drawn, 1).view(count, *self.code_shape)


def _pick(log_masses_BGHWK: Tensor, codes_BGHWS: Tensor) -> Tensor:
    """Sum over positions of the log-masses of the codes, `[S, B]`."""
    return log_masses_BGHWK.gather(-1, codes_BGHWS).sum((1, 2, 3)).T
