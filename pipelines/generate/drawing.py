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
from .sharpening import PLAIN, Choice, Sharpening
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
    temperature: float | None = None
    """With the next three, how far the distribution is sharpened (`sharpening_of`). None of them given: as was chosen
    on validation items, or not at all; one given: those that are not are 1, or all codes."""
    top_k: int = 0
    top_p: float | None = None
    guidance: float | None = None
    seed: int = 0

    @property
    def asked(self) -> Sharpening | None:
        """The sharpening that was asked for; None where none was."""
        if self.temperature is self.top_p is self.guidance is None and not self.top_k:
            return None
        temperature, top_p, guidance = (
            1.0 if each is None else each for each in (self.temperature, self.top_p, self.guidance)
        )
        return Sharpening(temperature=temperature, top_k=self.top_k, top_p=top_p, guidance=guidance)


@dataclass(frozen=True)
class Sharpened:
    """How far a distribution is sharpened, and why."""

    setting: Sharpening
    words: str


def choice_of(trained: Trained) -> Choice | None:
    """What was chosen for exactly these weights; None where nothing was.

    Raises:
        RunError: the file is damaged, or so is the prior.
    """
    path = trained.run.sampling_file(trained.name)
    if not path.is_file():
        return None
    choice = Choice.read(path)
    prior = trained.prior.sha256 if trained.model.latents == "codes" else None
    return choice if (choice.stage1_sha256, choice.prior_sha256) == (trained.stage1.sha256, prior) else None


def sharpening_of(trained: Trained, how: Drawing, *, conditioned: bool) -> Sharpened:
    """What was asked for; otherwise what was chosen on validation items; otherwise nothing.

    `conditioned`: whether items are given a label or speaker; guidance that was chosen needs one.

    Raises:
        RunError: what was chosen is damaged.
    """
    if how.asked is not None:
        return Sharpened(how.asked, how.asked.words)
    choice = choice_of(trained) if trained.model.latents != "none" else None
    if choice is None:
        return Sharpened(PLAIN, PLAIN.words)
    if choice.chosen.guidance != 1 and not conditioned:
        setting = replace(choice.chosen, guidance=1.0)
        return Sharpened(setting, f"{setting.words} (chosen on validation {choice.item}s with a label)")
    return Sharpened(choice.chosen, choice.words)


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
    asked = how.asked or PLAIN
    if model.latents == "gaussian" and (asked.top_k or asked.top_p < 1):
        raise UsageError("--top-k and --top-p choose among codes, but a VAE draws continuous latents: leave them out")
    if model.latents != "gaussian" and asked.top_k > model.codebook_size:
        raise UsageError(f"--top-k {asked.top_k} is more than the {model.codebook_size} codes of this codebook")
    if asked.guidance != 1 and (model.latents != "codes" or not trained.prior.model.condition_optional):
        raise UsageError(
            f"--guidance strengthens a label that a learned prior can also do without, but {_unguided(trained)}"
        )
    trained.with_decoder(how.decoder)
    trained.check_levels(how.levels)
    _length(trained, how.seconds, flag=flag)


def _unguided(trained: Trained) -> str:
    """Why a model takes no guidance: a clause."""
    if trained.model.latents != "codes":
        return f"model {trained.name} has no learned prior: leave it out"
    if not trained.prior.model.classes:
        return "this prior knows none: leave it out"
    section = trained.modality.sections["prior"]
    return (
        "this one was trained with labels only, without label dropout: leave it out, or remove "
        f"{trained.prior.checkpoint.path.parent} and run train-prior with "
        f"--{section.replace('_', '-')}.label-dropout 0.1"
    )


def check_guidance(how: Drawing, wanted: Wanted) -> None:
    """Raise UsageError where guidance was asked for, but no label or speaker that it could strengthen."""
    if how.guidance not in (None, 1) and not wanted.conditioned:
        raise UsageError(
            f"--guidance {how.guidance:g} strengthens the label that is asked for, but none is: ask for one, or leave "
            "it out"
        )


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
    to = sharpening_of(trained, how, conditioned=False).setting
    latents = trained.model.sample_latents(
        asked, seed=how.seed, temperature=to.temperature, top_k=to.top_k, top_p=to.top_p
    )
    return trained.decoded(latents, asked, decoder=how.decoder, seed=how.seed)


def draw_codes(trained: Trained, count: int, wanted: Wanted, how: Drawing) -> Sampled:
    """Codes of new items from the prior."""
    check_guidance(how, wanted)
    prior, condition, samples = trained.prior.model, wanted.condition_NA, _length(trained, how.seconds)
    to = sharpening_of(trained, how, conditioned=wanted.conditioned).setting
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
            guidance=to.guidance,
            temperature=to.temperature,
            top_k=to.top_k,
            top_p=to.top_p,
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
