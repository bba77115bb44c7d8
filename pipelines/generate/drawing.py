"""New items of a trained model: codes from its prior, or latents from its own distribution, through a decoder.

Item i of a seed is the same whatever the number of items.

Shapes: N items, G codebooks, n kept rows of codes.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from stage2_prior import sample
from stage2_prior.sampling import Sampled
from twostage.errors import UsageError
from twostage.progress import Progress

from ..modality.choose import load_data
from .asked import Source, Wanted
from .trained import Trained


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How new items are drawn."""

    seconds: float | None = None
    """Length of recordings, rounded up to whole codes; None: that the prior says or, where none is learned, those of
    the training recordings in turn."""
    lengths: np.ndarray | None = None
    """`[N]` int64, samples of every recording in the place of `seconds`, where no prior is learned."""
    known: Tensor | None = None
    """`[N, G, n, ...]`, the first rows (positions) of their codes, which are kept; under a mask all of them."""
    known_mask: Tensor | None = None
    """bool `[P]`, which positions of a hierarchy are kept."""
    decoder: str = "convolutional"
    levels: int | None = None
    """Of codes that have levels, how many of the first ones the decoder is given; None: all."""
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


def source_of(trained: Trained) -> Source:
    """What draws new items, as far as they can be asked to be something.

    Raises:
        RunError: the prior is missing, unfinished, damaged, or belongs to another codebook.
    """
    model = trained.model
    if model.latents == "codes":
        section, prior = trained.modality.sections["prior"], trained.prior
        return Source(
            record=prior.record,
            knows_labels=bool(prior.model.classes),
            labels_optional=prior.model.condition_optional,
            refuses=(
                f"this prior knows none: its data have no labels, or it was trained with {section}.conditional false "
                "and is conditioned on none: leave it out"
            ),
            needs=(
                "this prior was trained with labels only, without label dropout: give one, or remove "
                f"{prior.checkpoint.path.parent}, run train-prior with --{section.replace('_', '-')}.label-dropout 0.1 "
                f"({section}.label_dropout above 0), and generate again"
            ),
        )
    table = "the prior of VIMCO is a table of probabilities for each position, which knows none: choose a vq-vae"
    return Source(
        record=trained.record,
        knows_labels=model.classes > 0,
        labels_optional=False,
        refuses=table if model.latents == "table" else "this VAE knows none: see cvae",
        needs="a conditional VAE is given one with every item",
    )


def check_drawing(trained: Trained, how: Drawing, *, flag: str = "seconds") -> None:
    """Whether a model can draw so; `flag` is what errors call the length.

    Raises:
        UsageError: it has nothing to draw from, or not in that way; or there is no such decoder or length.
        RunError: prior or decoder are missing, unfinished, damaged, or belong to another codebook.
    """
    model = trained.model
    if model.latents == "none":
        raise UsageError(
            f"model {trained.name} is an autoencoder and has no distribution over latents to draw from: choose another "
            "model, or see in the report what a Gaussian fitted to its latents gives"
        )
    if model.latents == "gaussian" and (how.top_k or how.top_p < 1):
        raise UsageError("--top-k and --top-p choose among codes, but a VAE draws continuous latents: leave them out")
    if model.latents != "gaussian" and how.top_k > model.codebook_size:
        raise UsageError(f"--top-k {how.top_k} is more than the {model.codebook_size} codes of this codebook")
    trained.with_decoder(how.decoder)
    trained.check_levels(how.levels)
    _length(trained, how.seconds, flag=flag)


def _length(trained: Trained, seconds: float | None, *, flag: str = "seconds") -> int | None:
    """Samples of every new item, in whole codes; None where nothing says so."""
    most = trained.prior.model.code_shape[-1] if trained.model.latents == "codes" else None
    if seconds is None:
        return None
    return trained.files.length_of(seconds, trained.model, trained.record, most, flag=flag)


@torch.no_grad()
def draw(trained: Trained, count: int, wanted: Wanted, how: Drawing) -> list[np.ndarray]:
    """New items; what cannot be is refused by `check_drawing` before."""
    asked = trained.asked(count, wanted.labels, wanted.speakers)
    if trained.model.latents == "codes":
        drawn = draw_codes(trained, count, wanted, how)
        if drawn.lengths is not None:
            asked = replace(asked, lengths=trained.files.length_after(drawn.lengths, trained.model))
        return trained.decoded(drawn.codes[:, : how.levels], asked, decoder=how.decoder, seed=how.seed)
    asked = replace(asked, lengths=_lengths(trained, count, how))
    latents = trained.model.sample_latents(
        asked, seed=how.seed, temperature=how.temperature, top_k=how.top_k, top_p=how.top_p
    )
    return trained.decoded(latents, asked, decoder=how.decoder, seed=how.seed)


def draw_codes(trained: Trained, count: int, wanted: Wanted, how: Drawing) -> Sampled:
    """Codes of new items from the prior."""
    prior, condition, samples = trained.prior.model, wanted.condition_NA, _length(trained, how.seconds)
    length = None
    if samples is not None:
        length = int(trained.model.positions_of(trained.asked(1, (), (), torch.tensor([samples])))[0])
    positions = length or math.prod(prior.code_shape[1:])
    with Progress("generate", total=count * positions * prior.code_shape[0], unit="code") as bar:
        return sample(
            prior,
            count=count,
            condition=None if condition is None else condition.to(trained.device),
            known=how.known,
            known_mask=how.known_mask,
            length=length,
            temperature=how.temperature,
            top_k=how.top_k,
            top_p=how.top_p,
            seed=how.seed,
            device=trained.device,
            progress=lambda done, _: bar.advance(done - bar.done),
        )


def _lengths(trained: Trained, count: int, how: Drawing) -> Tensor | None:
    """Lengths of new items of a model whose latents do not say them, `[N]`; None of items all of one size.

    Raises:
        DataError, RunError: they are those of the training recordings, which cannot be read, or are others now.
    """
    if not trained.files.have_lengths:
        return None
    if how.lengths is not None:
        return torch.from_numpy(how.lengths).to(trained.device)
    length = _length(trained, how.seconds)
    if length is not None:
        return torch.full((count,), length, device=trained.device)
    dataset = load_data(trained.run.recipe)
    trained.run.check_data(trained.stage1, dataset)
    lengths_N = trained.files.lengths_of(dataset.train)
    assert lengths_N is not None
    return torch.from_numpy(np.resize(lengths_N, count)).to(trained.device)
