"""How many bytes of tensors are alive at once, counted operation by operation.

The counted number is the same on every machine and in every run, so that the memory of a large batch follows from two
small ones. What a library takes behind torch's back (scratch space of a convolution, say) is not seen.
"""

import sys
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Within, counts the memory of every tensor that is made, until it is freed; views of others take none."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        """Most bytes at a time, of tensors made within."""
        self.now = 0
        """Bytes of those that are alive."""
        self._known = set[int]()

    def start_anew(self) -> None:
        """The peak from now on; what is alive stays counted."""
        self.peak = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {storage._cdata for storage in _storages(tree_leaves((args, kwargs)))}
        made = func(*args, **(kwargs or {}))
        for storage in _storages(tree_leaves(made)):
            if storage._cdata not in given and storage._cdata not in self._known:
                size, key = storage.nbytes(), storage._cdata
                self._known.add(key)
                weakref.finalize(storage, self._free, key, size).atexit = False
                self.now += size
        self.peak = max(self.peak, self.now)
        return made

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _storages(values: Iterable[Any]) -> Iterator[torch.UntypedStorage]:
    return (value.untyped_storage() for value in values if isinstance(value, Tensor))


def resident_bytes() -> int:
    """Memory that this process holds; where the system does not say, the most that it has held, or 0."""
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        return 0
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024)  # bytes on macOS, elsewhere KiB
    return pages * resource.getpagesize()
