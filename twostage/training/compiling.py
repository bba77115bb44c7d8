"""torch.compile for the steps of a training; validation and everything after it run as written."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from twostage.errors import RunError


@contextmanager
def compiled(model: nn.Module) -> Iterator[None]:
    """Within, calls of `model` are compiled, each when it first happens.

    Parts that cannot be compiled run as written. The name and place of no weight change.

    Raises:
        RunError: the compiler failed, or there is none.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    # Every graph break would be a page on stderr; none is the user's fault.
    loggers = [logging.getLogger(name) for name in ("torch._dynamo", "torch._inductor", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    model.compile()
    try:
        yield
    except (TorchDynamoException, InductorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"torch.compile failed ({reason}): install a C++ compiler, or train with compile = false"
        ) from error
    finally:
        model._compiled_call_impl = None
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def as_written() -> Iterator[None]:
    """Within, nothing is compiled."""
    with torch.compiler.set_stance("force_eager"):
        yield
