"""What `evaluate` asks of a kind of data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twostage.metrics.code_labels import CodeMeaning

from ..runs.loading import Loaded
from .differences import Scored
from .rows import Diagnosis, Evaluation


@dataclass(frozen=True)
class ModelScores:
    """What was found of one model."""

    rows: tuple[Scored, ...]
    diagnosis: Diagnosis | None = None
    meaning: CodeMeaning | None = None
    """What its codes say of labels and speakers."""


class Scoring(Protocol):
    """Scores the models of one run on one split. All processes score; what `extras` adds is the work of one."""

    unit: str
    """One of `rows.UNITS`."""

    @property
    def dims(self) -> int:
        """Of an item where all are of one size, else of all items."""

    def warn(self) -> None:
        """Say what of the split no model can have met in training."""

    def left_out(self) -> Sequence[str]:
        """What the recipe asks for and these data do not allow, a sentence each."""

    def scores(self, name: str, stage1: Loaded[Any]) -> ModelScores:
        """Every row of a model, and what else there is to say of it.

        Raises:
            RunError: its prior or decoder is damaged or belongs to another codebook.
        """

    def extras(self, evaluation: Evaluation, scored: Sequence[Scored]) -> Iterator[Evaluation]:
        """The evaluation with what is not about rows, once more after each part of it: the bits come first."""
