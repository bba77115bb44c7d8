"""What memory there is, read from files laid out as systems lay them out, and what a training takes."""

from pathlib import Path

import pytest
import torch

from twostage.training.memory import available_bytes, readable_bytes, training_bytes

CPU = torch.device("cpu")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return root


SYSTEM = {"proc/meminfo": "MemTotal:        9000 kB\nMemFree:         10 kB\nMemAvailable:    4000 kB\n"}
SECOND = {
    **SYSTEM,
    "proc/self/cgroup": "0::/outer/inner\n",
    "sys/fs/cgroup/outer/memory.max": "3000000\n",
    "sys/fs/cgroup/outer/memory.current": "2500000\n",
    "sys/fs/cgroup/outer/memory.stat": "anon 7\nactive_file 300000\ninactive_file 100000\n",
    "sys/fs/cgroup/outer/inner/memory.max": "max\n",
    "sys/fs/cgroup/outer/inner/memory.current": "2500000\n",
}
FIRST = {
    **SYSTEM,
    "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/job\n0::/\n",
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "2000000\n",
    "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "1500000\n",
    "sys/fs/cgroup/memory/job/memory.stat": "active_file 1\ntotal_active_file 50000\ntotal_inactive_file 20000\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500000\n",
}
IN_CONTAINER = {  # the group's name is that outside, its limit lies at the top
    **SYSTEM,
    "proc/self/cgroup": "0::/somewhere/else\n",
    "sys/fs/cgroup/memory.max": "1000000\n",
    "sys/fs/cgroup/memory.current": "1200000\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (SYSTEM, 4_096_000),
        (SECOND, 900_000),
        (FIRST, 570_000),
        (IN_CONTAINER, 0),
        ({**SECOND, "sys/fs/cgroup/outer/memory.max": "max\n"}, 4_096_000),
    ],
    ids=["nothing", "system", "second", "first", "container", "no-limit"],
)
def test_the_tightest_limit_counts(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    assert available_bytes(CPU, root=write(tmp_path, files)) == expected


def test_this_machine_tells_something_sane() -> None:
    there = available_bytes(CPU)
    assert there is not None
    assert 2**20 < there < 2**50


def test_a_training_holds_what_torch_allocates_for_it() -> None:
    model = torch.nn.Linear(300, 200)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 300)).sum().backward()
    optimiser.step()
    tensors = [tensor for parameter in model.parameters() for tensor in (parameter, parameter.grad)]
    tensors += [value for state in optimiser.state.values() for value in state.values() if value.dim()]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert training_bytes(parameters) == sum(tensor.nbytes for tensor in tensors if tensor is not None)
    assert training_bytes(parameters, weight_average=True) == training_bytes(parameters) * 5 // 4


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (3 * 2**29, "1.5 GiB"), (2**20, "1 MiB"), (2**69, "5.24e+05 PiB")]
)
def test_bytes_are_readable(number: int, text: str) -> None:
    assert readable_bytes(number) == text
