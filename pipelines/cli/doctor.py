"""The verb `doctor`: what this installation consists of, and what in it does not fit together.

The one known misfit is torchaudio: its 2.11 wheels for Linux are built against CUDA 13.0, so beside torch 2.15 or later
(CUDA 13.2) they raise RuntimeError on import, and beside a CPU-only torch OSError. Images work without it.
"""

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from twostage.data.audio.libraries import FITTING_TORCHAUDIO
from twostage.errors import RunError

from ..commands.tools import Doctor

_LOW_DISK_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the table; `broken` means that the toolkit cannot work, `warning` that a part of it cannot."""

    what: str
    found: str
    state: Literal["good", "warning", "broken"] = "good"


def run_doctor(command: Doctor) -> None:
    """Print the table of findings.

    Raises:
        RunError: something that every verb needs is missing or broken.
    """
    from rich.table import Table

    from ..media.console import Output

    findings = list(examine())
    table = Table("", "found", "", title="twostage doctor", title_justify="left")
    for finding in findings:
        table.add_row(finding.what, finding.found, "" if finding.state == "good" else finding.state)
    Output().print(table)
    broken = [finding.what for finding in findings if finding.state == "broken"]
    if broken:
        wanted = " ".join(f"'{item}'" for item in requires("twostage") or [] if _package(item) in broken)
        raise RunError(f"{' and '.join(broken)} cannot be used: try pip install --force-reinstall {wanted}")


def examine() -> Iterator[Finding]:
    """Every finding, in the order shown; imports torch and torchaudio."""
    yield Finding("twostage", f"{version('twostage')} in {Path(__file__).resolve().parent.parent}")
    yield Finding("python", f"{platform.python_version()} ({sys.executable})")
    torch = _try_import("torch")
    yield Finding("torch", str(torch.__version__)) if not isinstance(torch, str) else Finding("torch", torch, "broken")
    yield torchaudio_finding()
    yield from _dependencies()
    if not isinstance(torch, str):
        yield _device(torch)
        yield Finding("CPU", f"{_usable_cores()} cores usable, {torch.get_num_threads()} torch threads")
        yield from _bf16(torch)
    yield _disk(Path.cwd())


def torchaudio_finding(load: Callable[[str], Any] = import_module) -> Finding:
    """Whether torchaudio loads beside this torch; `load` imports a module by name."""
    try:
        module = load("torchaudio")
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return Finding("torchaudio", f"cannot be imported ({reason}); audio needs it: {FITTING_TORCHAUDIO}", "warning")
    return Finding("torchaudio", str(module.__version__))


def _bf16(torch: Any) -> Iterator[Finding]:
    """What trainings with `precision = "auto"` choose, by the same function."""
    from twostage.training.precision import bf16_on

    for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        bf16 = bf16_on(torch.device(kind))
        yield Finding(f"bf16 on {kind.upper()}", f"{bf16}: precision auto is {'bf16' if bf16.native else 'fp32'}")


def _try_import(name: str) -> Any:
    """The module, or one line on why it cannot be imported."""
    try:
        return import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]


def _dependencies() -> Iterator[Finding]:
    """Every other package that `twostage` requires, with its version or its absence."""
    for requirement in requires("twostage") or []:
        name = _package(requirement)
        # An extra's packages are for development; torch and torchaudio have lines of their own.
        if "extra ==" in requirement or name in ("torch", "torchaudio"):
            continue
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, f"missing, expected {requirement}", "broken")


def _package(requirement: str) -> str:
    """Name in front of a requirement's version and markers."""
    return re.split(r"[\s;<>=!~\[]", requirement.strip(), maxsplit=1)[0]


def _device(torch: Any) -> Finding:
    if not torch.cuda.is_available():
        return Finding("device", f"CPU; no CUDA device (torch built for CUDA {torch.version.cuda or 'none'})")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("device", f"CUDA {torch.version.cuda}: {', '.join(names)}")


def _usable_cores() -> int:
    """Cores this process may run on; fewer than the machine's inside most containers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    state: Literal["good", "warning"] = "good" if free >= _LOW_DISK_BYTES else "warning"
    return Finding("free disk", f"{free / 2**30:.1f} GiB in {folder}", state)
