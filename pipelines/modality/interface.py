"""What differs between kinds of data, as far as training and loading see it: one small interface, one class a kind.

A modality knows recipes, data sets and models, never a run or a job. Verbs ask `choose.modality_of(recipe)` and work
with whatever comes, so that a new kind of data is one class beside `images.Images` and `audio.Audio`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from stage1_vqvae.interface import Codec
from twostage.config.dial import Asked, Dialled
from twostage.config.model_names import ModelSpec
from twostage.config.schema import Recipe, TrainingConfig
from twostage.storage.codes import CodeFile
from twostage.training.task import Task

from .files import Files
from .measures import Measures
from .pictures import Pictures, Stage

SPLITS = ("train", "validation", "test")
MIRRORED = "train-mirrored"
"""Codes of the mirrored training items, which the prior of images with horizontal flips sees too."""


class Modality(Protocol):
    """A kind of data. Data sets and models in the signatures are those of this kind."""

    sections: Mapping[Stage, str]
    """Section of the recipe that decides the networks of each stage that there is."""
    files: Files
    """How single items come from files and arrays and go back."""
    decoders: Mapping[str, str]
    """What a user calls the decoders of a codebook, and what is said of them; that of stage one comes first."""

    def load(self, recipe: Recipe) -> Any:
        """The recipe's data set, read into memory.

        Raises:
            UsageError: the settings do not fit together.
            DataError: a file is missing, damaged or not what its name says, or cannot be downloaded.
            RunError: a library that reading needs cannot be loaded.
        """

    def describe(self, dataset: Any) -> str:
        """What the data set is, for a line that begins with its name and its numbers of items."""

    def facts(self, dataset: Any) -> dict[str, Any]:
        """What the record of every training keeps of the data set, beside names of labels and the digest."""

    def stages(self, spec: ModelSpec, recipe: Recipe) -> tuple[Stage, ...]:
        """The trainings that a model consists of, in order."""

    def stage1(self, spec: ModelSpec, recipe: Recipe, dataset: Any) -> tuple[str, dict[str, Any]]:
        """Kind and keyword arguments of stage one.

        Raises:
            UsageError: there is no such model of this data.
        """

    def follower(self, stage: Stage, recipe: Recipe, codebook: Any, dataset: Any) -> tuple[str, dict[str, Any]]:
        """Kind and keyword arguments of what is fitted to the codes of a trained codebook.

        Raises:
            UsageError: the settings do not fit the data.
        """

    def build(self, kind: str, arguments: Mapping[str, Any]) -> nn.Module:
        """A freshly initialised model (torch's global generator) of a kind, from arguments as JSON keeps them.

        Raises:
            RunError: this version does not know the kind.
        """

    def with_decoder(self, codebook: Any, decoder: Any, progress: Callable[[int, int], None] | None = None) -> Codec:
        """A codebook with a decoder that was fitted to its codes, where `sections` has one, as one codec.

        `progress` is called while it decodes a batch with (done, all).
        """

    def dial(self, asked: Asked, dataset: Any) -> Dialled:
        """The recipe that a size makes of one for this data set.

        Raises:
            UsageError: there are no sizes for this kind of data.
        """

    def check(self, model: Any, recipe: Recipe, dataset: Any, training: TrainingConfig, *, label: str) -> None:
        """Raise UsageError where stage one, freshly built, can not be trained as asked; `label` names the training."""

    def stage1_task(
        self, model: Any, recipe: Recipe, dataset: Any, device: torch.device, prior: nn.Module | None = None
    ) -> Task:
        """What trains stage one; with a finished `prior` it goes on from the weights it has, and codes have a price."""

    def follower_task(
        self, model: Any, codebook: Any, codes: Mapping[str, CodeFile], recipe: Recipe, dataset: Any
    ) -> Task:
        """What trains a prior or decoder on the codes of every split; all models are on one device."""

    def code_splits(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of the splits whose codes are kept: training, validation, test, and what else the prior sees."""

    def measures(self, recipe: Recipe, dataset: Any, split: str) -> Measures:
        """What there is to measure of a split beside what models say."""

    def pictures(self, recipe: Recipe, dataset: Any) -> Pictures:
        """How items of the data set are shown."""


def second_decoder(modality: Modality) -> tuple[str, str]:
    """What a user calls the decoder that `sections` has beside that of stage one, and what is said of it."""
    _, second = modality.decoders.items()
    return second
