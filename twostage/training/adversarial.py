"""Adversarial training under the one training loop: a generator and its discriminator as two parts of one model.

Both move in the same step, each down the gradient of its own loss at the weights that both had before it. That takes
one loss and one optimiser. The loss is sum(y g) + hinge(D(x), D(y)) with the generator's output y in the first term
alone, and with g, a constant, the gradient of all that the generator is trained by with respect to y: since y is the
only way from its weights to these losses, `descend` gives the generator their gradients and the discriminator nothing
of them. Adam treats every weight by itself, so that one over both is two. Checkpoints, resumption, weight averages and
the checks for numbers that are not finite hold for both therefore, and the loop knows of neither.

Momentum is what such a pair cannot have: with Adam's usual 0.9 the discriminator lost track of the generator within a
hundred steps and told nothing apart any more (hinge loss 2). `make_optimiser` gives an `Adversarial` model `BETAS`.

What both share is the norm that gradients are clipped to. That of the discriminator was 20 to 30 times the other's, and
would scale the generator's steps up and down with its own: `DISCRIMINATOR_SHARE` of its loss is what is lowered, which
changes nothing for Adam, and makes the two norms alike.

Departures from VQGAN (Esser et al. 2021, arXiv 2012.09841): there the two take turns, so that the discriminator sees
what weights make that have already moved. And there the adversarial loss is weighed by the ratio of gradient norms at
the generator's last layer (eq. 7), which takes a backward pass more; here at its output, as in EnCodec (Défossez et al.
2022, arXiv 2210.13438, section 3.4), and for every item by itself, without a moving average: a step remains a function
of the weights and the batch, and a batch in parts, or in several processes, is the batch.

Nothing here knows what the items are.

Shapes: B items, S the axes of an item, P the axes of the verdicts on its patches, M of a map of features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BETAS = (0.5, 0.9)
"""Of Adam, for generator and discriminator: those of VQGAN."""
DISCRIMINATOR_SHARE = 0.02
"""Of the discriminator's loss, in the one that the optimiser lowers."""
BLIND = 1.98
"""Hinge loss from which on a discriminator tells nothing apart."""
_LEAST = 1e-12
"""Added to norms that are divided by: an item that is exact has no gradient."""


class Adversarial(nn.Module):
    """Interface: a generator with the discriminator that it is trained against, as one model."""

    discriminator: nn.Module


@dataclass(frozen=True)
class Judged:
    """What a discriminator makes of items."""

    verdicts: Tensor
    """`[B, *P]`: above 0 for real."""
    maps: tuple[Tensor, ...]
    """Features `[B, *M]` of its layers."""


def hinge_loss(real: Tensor, made: Tensor) -> Tensor:
    """The discriminator's loss by its verdicts `[B, *P]`, `[B]`: 2 where it says nothing, 0 where it is sure and right.

    Lim and Ye 2017 (arXiv 1705.02894), eq. 6.
    """
    return F.relu(1 - real.float()).flatten(1).mean(1) + F.relu(1 + made.float()).flatten(1).mean(1)


def generator_loss(made: Tensor) -> Tensor:
    """What the generator lowers by the verdicts `[B, *P]` on its items, `[B]`; eq. 7 of the same."""
    return -made.float().flatten(1).mean(1)


def feature_distance(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of features over the mean size of those of the real item, mean over the maps: `[B]`.

    Features of real items are constants. EnCodec, section 3.4, eq. 4.
    """
    distances = []
    for real_BM, made_BM in zip(real, made, strict=True):
        real_BM, made_BM = real_BM.detach().float().flatten(1), made_BM.float().flatten(1)
        distances.append((made_BM - real_BM).abs().mean(1) / (real_BM.abs().mean(1) + _LEAST))
    return torch.stack(distances).mean(0)


def balanced_gradient(output: Tensor, base_B: Tensor, others: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Gradient `[B, *S]` of a loss, and of others weighed by it, with respect to what a generator made.

    Every other loss has, for every item, a gradient of `weight` times the norm of the first one's. What the losses came
    from can be passed through once more.

    Args:
        output: `[B, *S]`, a leaf that requires a gradient.
        base_B: the first loss, of every item by its own output alone, as the others.
        others: their weights and losses `[B]`.
    """

    def of(loss_B: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = torch.autograd.grad(loss_B.sum(), output, retain_graph=True)
        return gradient, gradient.flatten(1).norm(dim=1).reshape(-1, *[1] * (gradient.dim() - 1))

    total, norm = of(base_B)
    for weight, loss_B in others:
        gradient, own = of(loss_B)
        total = total + gradient * (weight * norm / (own + _LEAST))
    return total


def descend(output: Tensor, gradient: Tensor, *, value: Tensor, discriminator: Tensor | None = None) -> Tensor:
    """The loss of both: a scalar of that value, whose gradient the generator has from `output` alone.

    Args:
        output: `[B, *S]` as the generator made it.
        gradient: of every item, with respect to it; the generator's is the mean over items.
        value: what is recorded as the loss.
        discriminator: its loss; None where none is trained.
    """
    carried = (output.float() * gradient).flatten(1).sum(1).mean()
    if discriminator is not None:
        carried = carried + DISCRIMINATOR_SHARE * discriminator
    return carried + (value - carried).detach()
