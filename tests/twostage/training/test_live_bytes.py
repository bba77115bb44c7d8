"""Counting the bytes of live tensors, against sums by hand."""

import mmap
import resource
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from twostage.training.live_bytes import LiveBytes, resident_bytes

KIB = 1024


def test_what_is_freed_counts_no_more_and_the_peak_is_kept() -> None:
    with LiveBytes() as live:
        first = torch.zeros(256 * 4)  # 4 KiB
        second = first + 1
        assert live.peak == 8 * KIB
        del first
        third = second + 1
        assert live.peak == 8 * KIB
        del second, third
        live.start_anew()
        assert live.peak == 0
        torch.ones(256)
        assert live.peak == KIB


def test_views_and_what_was_there_before_take_nothing() -> None:
    before = torch.zeros(1024, 256)
    with LiveBytes() as live:
        parts = [before[:10], before.t(), before.reshape(-1), before.add_(1)]
        assert live.peak == 0
        parts.append(before[torch.arange(2)])  # a copy, and the two numbers of 8 bytes
        assert live.peak == 2 * KIB + 16


def test_a_forward_pass_keeps_what_the_backward_pass_needs() -> None:
    weight = torch.zeros(256, 256, requires_grad=True)
    x = torch.zeros(16, 256)
    with LiveBytes() as live:
        hidden = F.linear(x, weight).exp()
        hidden = hidden.exp().exp()
        held = live.now
        hidden.sum().backward()
        assert held == 3 * 16 * KIB  # outputs of exp; that of the linear layer is needed no more
        assert live.now >= 256 * KIB  # the gradient
        assert live.peak < 256 * KIB + 8 * 16 * KIB


def test_memory_of_the_process_grows_with_what_it_holds() -> None:
    before = resident_bytes()
    with mmap.mmap(-1, 1 << 26) as pages:  # from the system: an allocator may have as much at hand from before
        pages[:: mmap.PAGESIZE] = b"x" * (len(pages) // mmap.PAGESIZE)
        assert resident_bytes() - before > 0.9 * len(pages)


def test_systems_without_proc_tell_the_most_that_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(path: Path, **settings: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", unknown)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for platform, unit in (("freebsd14", KIB), ("darwin", 1)):
        monkeypatch.setattr(sys, "platform", platform)
        assert most * unit <= resident_bytes() < 2 * most * unit


def test_a_system_without_such_counts_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert resident_bytes() == 0
