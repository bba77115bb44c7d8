"""Reading many files by a few threads, their results in order: decoding frees the interpreter."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

MOST_THREADS = 4
BLOCK_ITEMS = 1024
"""Items that a pool is given at once: each that waits costs a kilobyte, and each result that waits its own size."""

Mapped = Callable[..., Iterator[Any]]


@contextmanager
def mapper(*, threaded: bool = True) -> Iterator[Mapped]:
    """A function like `map` over sequences of one length, by threads where that is wanted and there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not threaded or cores == 1:
        yield map
        return
    pool = ThreadPoolExecutor(min(MOST_THREADS, cores))

    def in_blocks(function: Callable[..., Any], first: Sequence[Any], *others: Sequence[Any]) -> Iterator[Any]:
        for start in range(0, len(first), BLOCK_ITEMS):
            block = slice(start, start + BLOCK_ITEMS)
            yield from pool.map(function, first[block], *(other[block] for other in others))

    try:
        yield in_blocks
    finally:
        pool.shutdown(cancel_futures=True)  # after an error nobody waits for the other files
