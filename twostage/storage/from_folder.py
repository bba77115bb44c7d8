"""`from_folder` of the model classes: a trained network of a run folder or an exported one, without the pipelines."""

from pathlib import Path
from typing import ClassVar, Literal, Self, cast

import torch

from twostage.errors import RunError, UsageError
from twostage.storage.checkpoint import read_state
from twostage.storage.exported import check_exported
from twostage.storage.models import as_arguments, load_model
from twostage.storage.training_state import is_finished


class FromFolder:
    """A network that run folders hold; says which of their folders it is trained in, and under which kinds."""

    kinds: ClassVar[tuple[str, ...]]
    """What the record of a training calls the class."""
    stage: ClassVar[Literal["stage1", "prior", "decoder"]] = "stage1"
    """The training that it comes from."""

    @classmethod
    def from_folder(cls, folder: str | Path, *, model: str | None = None, device: str | torch.device = "cpu") -> Self:
        """The trained network of a run folder, or of what `twostage export` made of one, in eval mode.

        Args:
            folder: the folder.
            model: name of the model in it, such as `vq-vae`; None: the only one that has a network of this class.
            device: where the network lives.

        Raises:
            UsageError: the folder holds no finished network of this class, or several.
            RunError: it is damaged.
        """
        folder = Path(folder).expanduser()
        check_exported(folder)
        found = {path.parent.name: path for path in sorted(folder.glob(f"models/*/{cls.stage}")) if is_finished(path)}
        kinds = {name: _kind(path) for name, path in found.items()}
        own = [name for name in found if kinds[name] in cls.kinds and model in (None, name)]
        if len(own) != 1:
            there = ", ".join(f"{kinds[name]} in {name}" for name in found) or "nothing that is finished"
            several = f"several: choose model={' or model='.join(map(repr, own))}"
            raise UsageError(
                f"expected one trained {cls.__name__} in {folder}{'' if model is None else f' under {model}'}, but its "
                f"models hold {several if own else there}"
            )
        make = cast("type[torch.nn.Module]", cls)
        loaded = load_model(
            found[own[0]], torch.device(device), lambda record: make(**as_arguments(record["architecture"]))
        )
        return cast(Self, loaded.model)


def _kind(training: Path) -> str:
    """What the record of a finished training says it is."""
    kind = read_state(training / "best").get("record", {}).get("kind")
    if not isinstance(kind, str):
        raise RunError(f"{training / 'best'} does not say what was trained: another program wrote it, use that one")
    return kind
