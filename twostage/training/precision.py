"""In which arithmetic a training computes, and whether bf16 is worth it on its device.

A processor without bf16 units emulates them, and a training step takes many times as long as in fp32. Whether a CPU has
them is measured and not read from its flags: not every system lists those, the kernels that use the units may be
missing or switched off (ONEDNN_MAX_CPU_ISA), and the measurement is also the number that a person is told. It is the
shortest of many tries, in the CPU time of one thread, so other programs disturb it little. On one processor with
AVX-512 BF16 it is 0.65, with ONEDNN_MAX_CPU_ISA=AVX512_CORE 2.2 and with AVX2 14 (benchmarks/speed/precision.py):
nothing lies near the limit of 1.

Shapes: B images, C channels.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F

from twostage.distributed import of_every_rank
from twostage.errors import RunError, UsageError
from twostage.printable import shown
from twostage.progress import say

Precision = Literal["fp32", "bf16"]
Setting = Literal["fp32", "bf16", "auto", "bf16-forced"]
"""Of a recipe (`TrainingConfig.precision`)."""

_SECONDS = 0.1
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Bf16:
    """What bf16 costs on a device: its time over that of fp32."""

    cost: float
    """Measured on a CPU; of a CUDA device, which is asked and not measured, 0 or infinity."""

    @property
    def native(self) -> bool:
        """Whether the device computes bf16 itself."""
        return self.cost < 1

    def __str__(self) -> str:
        if not 0 < self.cost < math.inf:
            return f"the CUDA device {'has' if self.native else 'has no'} bf16 units"
        return f"a convolution takes {self.cost:.2g} times as long in bf16 as in fp32"


def bf16_on(device: torch.device) -> Bf16:
    """What bf16 costs on the device; of several processes, which all must call this, on the slowest."""
    if device.type == "cuda":
        own = 0.0 if torch.cuda.is_bf16_supported(including_emulation=False) else math.inf
    else:
        own = cpu_cost()
    return Bf16(max(of_every_rank(own)))


@cache
def cpu_cost() -> float:
    """Time of a convolution's forward and backward pass in bf16 over its time in fp32, on one thread; takes 0.1 s."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the one whose CPU time is read
    try:
        with torch.enable_grad():
            return _measured()
    finally:
        torch.set_num_threads(threads)


def _measured() -> float:
    best = {torch.bfloat16: math.inf, torch.float32: math.inf}
    tensors = {
        dtype: [torch.ones(shape, dtype=dtype, requires_grad=True) for shape in ((4, 128, 8, 8), (128, 128, 3, 3))]
        for dtype in best
    }
    end, rounds = time.thread_time() + _SECONDS, 0
    while rounds < _LEAST_ROUNDS or time.thread_time() < end:
        for dtype, (x_BCHW, weight) in tensors.items():
            start = time.thread_time()
            y_BCHW = F.conv2d(x_BCHW, weight, padding=1)
            torch.autograd.grad(y_BCHW, (x_BCHW, weight), y_BCHW)
            if rounds:  # the first one compiles kernels
                best[dtype] = min(best[dtype], time.thread_time() - start)
        rounds += 1
    return best[torch.bfloat16] / best[torch.float32]


def asked_precision(setting: Setting) -> Precision | None:
    """What a setting asks for; None for `auto`."""
    return None if setting == "auto" else "fp32" if setting == "fp32" else "bf16"


def chosen_precision(setting: Setting, device: torch.device) -> Precision:
    """What a new training computes in: of `auto`, bf16 where the device computes it itself, otherwise fp32."""
    return asked_precision(setting) or ("bf16" if bf16_on(device).native else "fp32")


def recorded_precision(record: Mapping[str, Any], *, folder: Path) -> Precision:
    """What the training of that record in that folder has computed in.

    Raises:
        RunError: it says what this version does not know.
    """
    found = record.get("precision")
    if found not in ("fp32", "bf16"):
        raise RunError(
            f"the training in {folder} has computed in the precision {shown(found)}, but this version knows fp32 and "
            "bf16: use the version that wrote it"
        )
    return cast(Precision, found)


def kept_precision(record: Mapping[str, Any], setting: Setting, device: torch.device, *, folder: Path) -> Precision:
    """What a training goes on in: what it began in; a warning says so where it would now begin in the other.

    Raises:
        RunError: its record says what this version does not know.
    """
    kept = recorded_precision(record, folder=folder)
    if setting != "bf16-forced" and (setting == "auto" or kept == "bf16"):
        bf16 = bf16_on(device)
        if kept != ("bf16" if bf16.native else "fp32"):
            say(f"warning: {folder} was trained in {kept} and goes on in {kept}, although here {bf16}")
    return kept


def check_bf16(setting: Setting, device: torch.device, *, what: str) -> None:
    """Raise UsageError where `what` is to begin in bf16, unforced, on a device that only emulates it."""
    if setting != "bf16":
        return
    bf16 = bf16_on(device)
    if not bf16.native:
        raise UsageError(
            f'{what} asks for precision "bf16", which this {device.type.upper()} only emulates: {bf16} (measured); use '
            '"auto" or "fp32", or "bf16-forced" to train in it all the same'
        )
