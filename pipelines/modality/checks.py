"""What kinds of data check alike before a training."""

from twostage.config.model_names import ModelSpec
from twostage.config.schema import TrainingConfig
from twostage.data.interface import Dataset
from twostage.distributed import world_size
from twostage.errors import UsageError
from twostage.storage.models import as_arguments

__all__ = ["as_arguments", "check_codebook_size", "check_free_bits", "check_labels_exist"]


def check_codebook_size(codes: int, vectors: int, items: str, *, label: str) -> None:
    """Raise UsageError for a codebook of more codes than there are encoded training vectors."""
    if codes > vectors:
        raise UsageError(
            f"{label}: the {items} are encoded as {vectors} vectors, fewer than the {codes} codes of a "
            "codebook: choose a smaller quantiser.codebook_size, or fewer quantiser.fsq_levels"
        )


def check_free_bits(free_bits: float, training: TrainingConfig, *, label: str) -> None:
    """Raise UsageError for free bits in a training whose batches are worked through in parts."""
    if free_bits and world_size() * training.accumulate > 1:
        raise UsageError(
            f"{label}: gaussian.free_bits compares the KL of the whole batch with a limit, which no part of it "
            "knows: train with one process and without accumulate, or with gaussian.free_bits 0"
        )


def check_labels_exist(spec: ModelSpec, dataset: Dataset, *, item: str) -> None:
    """Raise UsageError for a conditional model where there are no labels; `item` is the word for one."""
    if spec.kind == "cvae" and not dataset.classes:
        raise UsageError(
            f"model {spec.name} is given the label of every {item}, but {dataset.name} has no labels: choose vae"
        )
