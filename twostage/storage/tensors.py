"""Tensors as one file of safetensors, which runs no code on load, within a size of its header that is safe to parse."""

from collections.abc import Mapping

import safetensors.torch
from torch import Tensor

from twostage.storage.manifest import Damaged

# Room for ten thousand tensors. An entry of a hostile header is a tensor of no values, many times its size in memory.
_LARGEST_HEADER_BYTES = 1 << 21


def render_tensors(named: Mapping[str, Tensor]) -> bytes:
    """The file of tensors on any device, shared or not contiguous as they may be.

    Raises:
        ValueError: their names and shapes take more than is read back.
    """
    data = safetensors.torch.save(_plain(named))
    if _header_bytes(data) > _LARGEST_HEADER_BYTES:
        raise ValueError(f"expected names and shapes of at most {_LARGEST_HEADER_BYTES} bytes, but more came")
    return data


def _header_bytes(data: bytes) -> int:
    """Length of safetensors' JSON header as the file states it."""
    return int.from_bytes(data[:8], "little")


def parse_tensors(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a file called `name`, on the CPU.

    Raises:
        Damaged: it holds none that this version reads.
    """
    if _header_bytes(data) > _LARGEST_HEADER_BYTES:
        raise Damaged(f"{name} states a header of more than the {_LARGEST_HEADER_BYTES} bytes that are read")
    try:
        return safetensors.torch.load(data)
    except Exception as error:  # the parser raises half a dozen types on bytes that a hostile manifest vouches for
        raise Damaged(f"{name} is not a safetensors file that this version reads") from error


def _plain(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CPU tensors that safetensors accepts: contiguous, each with a storage of its own; copied only where needed."""
    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in named.items():
        own = tensor.detach().to("cpu").contiguous()
        if own.untyped_storage().data_ptr() in storages:
            own = own.clone()
        storages.add(own.untyped_storage().data_ptr())
        plain[name] = own
    return plain
