"""Trained models in training folders: built from the record of a checkpoint, and given its weights.

A checkpoint names its kind and the keyword arguments it was built with, never code; what they say is believed only as
far as the weights beside them bear it out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from twostage.errors import RunError
from twostage.storage.checkpoint import Checkpoint, load_checkpoint

_REPLACED_TENSORS = 1000
"""Parameters that a model may make beyond those it keeps: an MLP takes the place of convolutions."""
_DERIVED_VALUES = 1 << 20
"""Of tables that a model makes for itself and does not store, such as the levels of samples."""
_LENGTH_AT = {torch.arange: 0, torch.hann_window: 0, torch.linspace: 2}
"""Place of the length among the arguments of constructors of vectors."""
_LIKE_FIRST = ("zeros_like", "mul", "__mul__", "__rmul__", "eq", "__eq__")
"""Functions whose result has the shape of the first argument where the second is a number."""


M = TypeVar("M", bound=torch.nn.Module)


@dataclass(frozen=True)
class Loaded(Generic[M]):
    """A trained model in eval mode, with its record."""

    model: M
    checkpoint: Checkpoint

    @property
    def sha256(self) -> str:
        """Digest of the weights file; codes, priors and decoders of codes are tied to that of their codebook."""
        return self.checkpoint.sha256["model.safetensors"]

    @property
    def record(self) -> dict[str, Any]:
        return self.checkpoint.state["record"]


def load_model(folder: Path, device: torch.device, build: Callable[[dict[str, Any]], M]) -> Loaded[M]:
    """The best model of a training folder; `build` makes it, untrained, from its record.

    Raises:
        RunError: there is none, or it is damaged.
    """
    checkpoint = load_checkpoint(folder / "best")
    try:
        record, tensors = checkpoint.state["record"], checkpoint.tensors["model"]
        _check_fits(lambda: build(record), tensors)
        model = build(record)
        model.load_state_dict(tensors)
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RunError(
            f"the weights in {checkpoint.path} do not fit the model it describes, so another version of twostage wrote "
            f"them: remove {folder} and train it again, or use that version"
        ) from error
    model.to(device).eval()
    return Loaded(model=model, checkpoint=checkpoint)


class _ShapesOnly(TorchFunctionMode):
    """Within, the tensors of a model's constructor get their shapes, but nothing is drawn, computed or written.

    On its meta device torch does these things by way of torch._dynamo, whose import takes half as long as all of torch.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.__name__
        if func in _LENGTH_AT:
            return torch.empty(args[_LENGTH_AT[func]])
        if func is torch.randn:
            return torch.empty(*args)
        if name in _LIKE_FIRST or (name.endswith("_") and not name.endswith("__")):
            return args[0] if args else kwargs["tensor"]  # as torch.nn.init names it
        return None if name == "__setitem__" else func(*args, **kwargs)


def shapes_only(build: Callable[[], M]) -> M:
    """The model that `build` makes, without values: of any size, in no time and no memory, and drawing no numbers."""
    with torch.device("meta"), _ShapesOnly():
        return build()


def _check_fits(build: Callable[[], torch.nn.Module], tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError unless the model has these tensors, before it takes memory: a record may claim any size.

    A model without values is built first, and not much deeper than there are tensors.
    """
    parameters = 0

    def count(*_: object) -> None:
        nonlocal parameters
        parameters += 1
        if parameters > len(tensors) + _REPLACED_TENSORS:
            raise ValueError(f"expected a model of at most {len(tensors)} tensors")

    handle = register_module_parameter_registration_hook(count)
    try:
        model = shapes_only(build)
    finally:
        handle.remove()
    stored = model.state_dict()
    if {key: (t.shape, t.dtype) for key, t in stored.items()} != {
        key: (t.shape, t.dtype) for key, t in tensors.items()
    }:
        raise ValueError("expected the names, shapes and types of the model's own tensors")
    derived = sum(buffer.numel() for name, buffer in model.named_buffers() if name not in stored)
    if derived > _DERIVED_VALUES + sum(tensor.numel() for tensor in tensors.values()):
        raise ValueError(f"expected fewer than {derived} values that are not stored")


def as_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments as they were, of whose shapes JSON has made lists."""
    return {key: _as_tuples(value) for key, value in arguments.items()}


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
