"""Kinds of data: which data sets are of a kind, and which settings it alone has. Without torch.

A new kind is an entry of `KINDS` here, with its section in the schema, and one of `MODALITIES` in
`pipelines/modality/choose.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from twostage.config.audio_schema import AUDIO_DATA
from twostage.config.schema import Recipe
from twostage.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DataKind:
    """What recipes on one kind of data have of their own."""

    about: str
    """What its settings are said to be of."""
    datasets: tuple[str, ...]
    """Values of `data.name`."""
    sections: tuple[str, ...]
    """Sections of a recipe that mean nothing for kinds that do not list them too."""
    settings: Mapping[str, tuple[str, ...]]
    """Single settings of other sections, by section, of which the same is true."""
    flags: tuple[str, ...] = ()
    """Flags of verbs for every kind of data that mean nothing for kinds that do not list them too."""
    lacks: tuple[str, ...] = ()
    """Models that there are not of it."""
    recipe: type[Recipe] = Recipe
    """Schema of its recipes."""

    def has(self, section: str, key: str) -> bool:
        """Whether a setting that is not for all kinds is for this one."""
        return section in self.sections or key in self.settings.get(section, ())


KINDS: dict[str, DataKind] = {
    "images": DataKind(
        about="images",
        datasets=("digits", "shapes", "mnist", "fashion-mnist", "cifar10", "images", "arrays"),
        sections=("stage1", "vimco", "picture_decoder", "decoder_training", "prior"),
        settings={
            "data": (
                *("image_size", "fit", "colour", "bits", "levels", "train_folder", "test_folder"),
                *("horizontal_flips", "binarise"),
            ),
            "gaussian": ("latent_dim", "network", "mlp_layers", "mlp_width"),
            "evaluation": ("search_items", "search_candidates", "search_sweeps"),
        },
        flags=("decoder", "keep_rows"),
    ),
    "recordings": DataKind(
        about="sound",
        datasets=AUDIO_DATA,
        sections=("recordings", "audio", "wavenet_decoder", "decoder_training", "wavenet_prior"),
        settings={"evaluation": ("batch_samples", "sampled_items")},
        flags=("speaker", "seconds", "decoder", "keep_seconds"),
        lacks=("vimco",),
    ),
}
"""By what a run is said to be about, which is also the name that `modality.choose` knows the kind by."""


def kind_named(dataset: object) -> str | None:
    """Key in `KINDS` of the kind that a value of `data.name` is of; None of another value."""
    return next((name for name, kind in KINDS.items() if dataset in kind.datasets), None)


def kind_of(recipe: Recipe) -> str:
    """Key in `KINDS` of the kind of data that a recipe is about."""
    name = kind_named(recipe.data.name)
    assert name is not None  # the schema admits no other data set
    return name


def reads_setting(kind: str | None, section: str, key: str) -> bool:
    """Whether recipes on a kind of data read a setting; of no kind in particular (None), whether any do."""
    return kind is None or KINDS[kind].has(section, key) or not any(each.has(section, key) for each in KINDS.values())


def reads_flag(kind: str | None, name: str) -> bool:
    """As `reads_setting`, of a flag of a verb."""
    return kind is None or name in KINDS[kind].flags or not any(name in each.flags for each in KINDS.values())


def check_model_exists(name: str, recipe: Recipe, *, source: str) -> None:
    """Raise UsageError where a model is asked for that there is not of the data of a recipe."""
    kind = kind_of(recipe)
    if name in KINDS[kind].lacks:
        raise UsageError(f"{source}: {name} is no model of {kind}: choose another one, such as vq-vae or vae.")
