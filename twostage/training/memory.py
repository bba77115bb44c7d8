"""How much memory a device still has, and what a training holds at the very least.

Of a CPU it is the smaller of what the system calls available and what the limits of the process's control groups
(containers, batch systems) leave, both versions of them; file caches, which the system gives up on demand, count as
free. Where neither is told (other systems than Linux) it is the memory that the machine has, or unknown.
"""

import os
from pathlib import Path

import torch

_NUMBER_BYTES = 4
_COPIES = 4
"""Weight, gradient and Adam's two moments."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def training_bytes(parameters: int, *, weight_average: bool = False) -> int:
    """Bytes of fp32 weights, their gradients, Adam's moments and, where there is one, their moving average."""
    return parameters * _NUMBER_BYTES * (_COPIES + weight_average)


def available_bytes(device: torch.device, *, root: Path = Path("/")) -> int | None:
    """Bytes that this process can still take on the device; None where nothing says.

    `root` is where /proc and /sys are looked for.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    told = [_system_bytes(root), *(_left_in(folder) for folder in _groups(root))]
    return min((number for number in told if number is not None), default=None)


def readable_bytes(number: float) -> str:
    """`readable_bytes(3 * 2**29)` is `1.5 GiB`."""
    unit = 0
    while number >= 1000 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.3g} {_UNITS[unit]}"


def _system_bytes(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    if root != Path("/") or not hasattr(os, "sysconf"):
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # names that this system does not know
        return None


def _groups(root: Path) -> list[Path]:
    """Folders of the control groups that the process is in, the outer ones included; inside a container its own."""
    found = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)  # number, controllers (none in version two), group
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        own = top / path.strip().lstrip("/")
        found += [folder for folder in (own, *own.parents) if folder.is_relative_to(top)]
    return found


def _left_in(group: Path) -> int | None:
    """Bytes that a control group may still take; None of one without a limit."""
    for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        numbers = [_lines(group / name) for name in (limit, usage)]
        if all(lines and lines[0].isdigit() for lines in numbers):
            most, used = (int(lines[0]) for lines in numbers)
            return max(most - used + _cached_in(group), 0)
    return None


def _cached_in(group: Path) -> int:
    """Bytes of files that a control group, the inner ones included, keeps in memory until they are needed."""
    stat = dict(line.partition(" ")[::2] for line in _lines(group / "memory.stat"))
    # The first version counts a group without its inner ones, unless asked for the total.
    return sum(int(stat.get(f"total_{kind}", stat.get(kind, "0"))) for kind in ("active_file", "inactive_file"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
