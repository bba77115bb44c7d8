"""Several processes that work together: torchrun starts them, torch.distributed carries the numbers.

The processes of a job are ranks 0 .. world - 1. Every function here that sends something must be called by all of them
in the same order; without a process group it returns its argument and sends nothing, so that one process is the plain
case of the same code. Rank 0 alone writes files and speaks.

What goes wrong ends all of them: a rank that fails closes its connections, the others see that in their next message
(or after the timeout, where a rank hangs or a machine is gone), and of all of them only the first to fail says why.
"""

import hashlib
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from twostage import progress
from twostage.errors import RunError, SaidElsewhere, TwoStageError, UsageError
from twostage.noise import batch_generator

T = TypeVar("T")

_HEAD_START_SECONDS = 0.5
"""By which rank 0 goes first in saying what failed: what fails everywhere is said once and by the same rank."""


class LostProcess(RunError):
    """Another process of the job ended or is out of reach."""


def world_size() -> int:
    """Processes that work together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


@contextmanager
def process_group(device: torch.device, *, timeout_seconds: float) -> Iterator[None]:
    """The group of all processes that torchrun started, for as long as the block lasts.

    Numbers travel by gloo from the CPU and by nccl from CUDA devices, of which each process of a machine takes its own.

    Args:
        device: of the kind that the processes compute with.
        timeout_seconds: longest time that one process waits for another.

    Raises:
        UsageError: not started by torchrun, or more processes on this machine than CUDA devices.
        LostProcess: not all processes arrived in time, or one got lost later.
        SaidElsewhere: in place of what ended this process, if another one ended first and has said why.
    """
    store = _join(device, timedelta(seconds=timeout_seconds))
    if rank() > 0:
        progress.mute()
    try:
        yield
    except BaseException as error:
        # torchrun ends the others when it sees one end: not before they have said why they do.
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if _first_to_fail(store, error):
            if rank() > 0 and isinstance(error, TwoStageError) and not isinstance(error, LostProcess):
                error.args = (f"process {rank()} of {world_size()}: {error}",)
        elif isinstance(error, TwoStageError | KeyboardInterrupt):
            raise SaidElsewhere(getattr(error, "exit_code", 130)) from error
        raise  # without taking the group down, which needs the other processes
    leave()


def leave() -> bool:
    """End the group here; True for the one process that goes on, alone."""
    first = is_first()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    return first


def _join(device: torch.device, timeout: timedelta) -> dist.Store:
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, but {', '.join(missing)} not set: start several processes "
            "with torchrun --nproc-per-node N -m twostage_pipelines VERB ..., or unset WORLD_SIZE"
        )
    backend = "gloo"
    if device.type == "cuda":
        own, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if own >= devices:
            raise UsageError(
                f"expected at most one process for each of the {devices} CUDA devices of this machine, but there is a "
                f"process number {own + 1}: start fewer (--nproc-per-node {devices}), or use --device cpu"
            )
        torch.cuda.set_device(own)
        backend = "cpu:gloo,cuda:nccl"
        # Otherwise nccl's own thread aborts the process after the timeout, without a word on how to go on.
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    try:
        store, number, world = next(dist.rendezvous("env://", timeout=timeout))
        store.set_timeout(timeout)
        prefixed = dist.PrefixStore("group", store)
        dist.init_process_group(backend, store=prefixed, rank=number, world_size=world, timeout=timeout)
    except (RuntimeError, OSError) as error:
        raise LostProcess(
            f"expected {os.environ['WORLD_SIZE']} processes to come together within {timeout.total_seconds():g} s, but "
            f"they did not ({_reason(error)}): look at what the others say, and whether the machines reach "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        ) from error
    return store


def _first_to_fail(store: dist.Store, error: BaseException) -> bool:
    own = str(rank())
    if own != "0" and not isinstance(error, LostProcess):
        time.sleep(_HEAD_START_SECONDS)
    try:
        return bool(store.compare_set("failed", "", own) == own.encode())
    except (RuntimeError, OSError):
        return True  # the store went with the process that held it: better twice than not at all


def _reason(error: BaseException) -> str:
    """The first sentence, without the position in gloo's source that comes before it."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"^\[/\S*\] ", "", line).split(". ")[0].rstrip(".")


@contextmanager
def _message() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo raises it plainly, nccl a subclass
        raise LostProcess(
            f"process {rank()} of {world_size()} lost another one ({_reason(error)}): look whether one was killed, "
            "then run the same command again, with any number of processes, to go on from the last checkpoint"
        ) from error


def sum_over_ranks(*tensors: Tensor) -> list[Tensor]:
    """Sums over all ranks, in one message; the arguments, on one device, stay as they are.

    Exact, and the same with any number of processes, where each entry is other than zero on one rank only.
    """
    if world_size() == 1:
        return list(tensors)
    packed = torch.cat([tensor.flatten() for tensor in tensors])
    with _message():
        dist.all_reduce(packed)
    parts = packed.split([tensor.numel() for tensor in tensors])
    return [part.reshape(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]


def copy_from_first(*tensors: Tensor) -> None:
    """Overwrite the tensors by those of rank 0."""
    if world_size() > 1:
        with _message():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


def copy_module_from_first(module: nn.Module) -> None:
    """Overwrite parameters and buffers by those of rank 0: equal seeds give equal weights only on equal machines."""
    copy_from_first(*(tensor.detach() for tensor in [*module.parameters(), *module.buffers()]))


def own_part(rows: np.ndarray) -> tuple[int, np.ndarray]:
    """This process's part of a global batch: number of its first row, and its rows.

    Parts are consecutive and differ by at most one row: laid end to end they are the batch again, in its order.
    """
    parts, own = np.array_split(rows, world_size()), rank()
    return sum(map(len, parts[:own])), parts[own]


def own_batches(items: int, batch_size: int) -> Iterator[slice]:
    """This process's share of a data set's batches: every batch is one rank's, and is what it is with one process.

    To be measured into zeros and added by `sum_over_ranks`, which then has the same bits for any number of processes.
    """
    for start in range(rank() * batch_size, items, world_size() * batch_size):
        yield slice(start, min(start + batch_size, items))


def own_share(batches: Sequence[T]) -> Sequence[T]:
    """`own_batches` of batches that are cut already."""
    return batches[rank() :: world_size()]


def of_every_rank(number: float) -> list[float]:
    """The number of each rank, exact."""
    numbers = torch.zeros(world_size(), dtype=torch.float64)
    numbers[rank()] = number
    return [float(value) for value in sum_over_ranks(numbers)[0]]


def wait_for_all() -> None:
    """Return once every process has come this far."""
    of_every_rank(0)


def check_same(text: str, *, what: str) -> None:
    """Raise RunError unless `text` is the same in every process; `what` says in words what differs if not."""
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")  # an integer that float64 holds
    differing = [number for number, other in enumerate(of_every_rank(digest)) if other != digest]
    if differing:
        raise RunError(
            f"process {rank()} and process {differing[0]} differ in {what}: give all processes the same command, data "
            "and version, and a run folder on a file system that all machines share"
        )


def draw_rows(rows_ND: Tensor, count: int) -> Tensor:
    """At most `count` rows, without replacement, of all ranks' rows laid end to end; the same rows on every rank."""
    own, world = rank(), world_size()
    lengths = torch.zeros(world, dtype=torch.int64, device=rows_ND.device)
    lengths[own] = len(rows_ND)
    (lengths,) = sum_over_ranks(lengths)
    # drawn on the CPU from a generator that training seeds at every step
    generator = batch_generator(torch.device("cpu"))
    drawn = torch.randperm(int(lengths.sum()), generator=generator)[:count].to(rows_ND.device)
    copy_from_first(drawn)
    local = drawn - lengths[:own].sum()
    mine = (local >= 0) & (local < len(rows_ND))
    chosen_MD = torch.zeros(len(drawn), rows_ND.shape[1], dtype=rows_ND.dtype, device=rows_ND.device)
    chosen_MD[mine] = rows_ND[local[mine]]
    return sum_over_ranks(chosen_MD)[0]
