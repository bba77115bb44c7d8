"""What a training's checkpoint says beside its tensors, checked before it is believed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twostage.errors import RunError
from twostage.progress import say
from twostage.storage.checkpoint import newest_state, read_state
from twostage.storage.exported import MARK

_NUMBER = (int, float)
_TYPES: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "finished": (bool,),
    "seconds": _NUMBER,
    "best_step": (int,),
    "best_value": (*_NUMBER, type(None)),
    "metrics_bytes": (int,),
    "record": (dict,),
}
RESUMED = ("step", "seconds", "best_step", "best_value", "metrics_bytes", "record")


def check_state(state: Mapping[str, Any], folder: Path, *needed: str) -> None:
    """Raise RunError unless the entries that are there, and those that are needed, are of their types."""
    for name, types in _TYPES.items():
        if name in state or name in needed:
            _check(name in state and type(state[name]) in types, name, folder)


def recorded_state(folder: Path, *needed: str, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The state of the newest checkpoint of a run's training, None where none has begun; of an exported one its last.

    Its record holds the settings in `config`, and those of the training itself in `config.training`.

    Raises:
        RunError: no checkpoint is whole, or the state does not say what it must.
    """
    state = newest_state(folder, warn=warn)
    if state is None:
        state = _exported_state(folder)
    if state is None:
        return None
    check_state(state, folder, "step", "record", *needed)
    config = state["record"].get("config")
    _check(isinstance(config, dict), "record.config", folder)
    training = config.get("training")
    _check(isinstance(training, dict), "record.config.training", folder)
    _check(type(training.get("steps")) is int, "record.config.training.steps", folder)
    start = state["record"].get("start")
    if start is not None:
        _check(isinstance(start, dict) and type(start.get("steps")) is int, "record.start.steps", folder)
        _check(type(start.get("seconds")) in _NUMBER, "record.start.seconds", folder)
    return state


def is_finished(folder: Path) -> bool:
    """Whether the training of a folder came to its end: the last step of its budget, or of its patience.

    Raises:
        RunError: its checkpoints are damaged, or of another program.
    """
    state = recorded_state(folder, "finished", warn=say)
    return state is not None and bool(state["finished"])


def _exported_state(folder: Path) -> dict[str, Any] | None:
    """What the weights of an exported folder say of their training; None where a training left none yet."""
    if not (folder / "best").is_dir():
        return None
    state = read_state(folder / "best")
    return state if state.get(MARK) is True else None


def _check(holds: bool, name: str, folder: Path) -> None:
    if not holds:
        raise RunError(
            f"the newest checkpoint in {folder} has no {name} that this version understands, so another program or "
            "version wrote it: use that version, or move the folder away and train again"
        )
