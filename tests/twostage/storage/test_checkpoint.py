"""Checkpoints: exact round trip, the newest whole one, and what is removed."""

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from twostage.errors import RunError
from twostage.storage.atomic import write_atomic
from twostage.storage.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_newest,
    newest_state,
    prune,
    save_checkpoint,
    step_name,
    verify_checkpoint,
)
from twostage.storage.manifest import MANIFEST


def save(path: Path, number: int) -> None:
    save_checkpoint(path, tensors={"model": {"weight": torch.full((3,), float(number))}}, state={"number": number})


def number(checkpoint: Checkpoint | None) -> int:
    """The number that was saved, provided that tensors and state belong together."""
    assert checkpoint is not None
    assert set(checkpoint.tensors["model"]["weight"].tolist()) == {float(checkpoint.state["number"])}
    return checkpoint.state["number"]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.detach().contiguous().flatten().view(torch.uint8).tolist()


class TestRoundTrip:
    def test_tensors_of_every_kind_come_back_bit_for_bit(self, tmp_path: Path) -> None:
        base = torch.arange(12.0).reshape(3, 4)
        tensors = {
            "view": base[1],
            "whole": base,
            "again": base,
            "transposed": base.T,
            "strided": base[:, ::2],
            "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            "parameter": torch.nn.Parameter(torch.randn(2)),
            "scalar": torch.tensor(7.0),
            "empty": torch.zeros(0, 3),
            "empty_too": torch.zeros(0, 3),
            "special": torch.tensor([float("nan"), float("inf"), -0.0]),
            "half": torch.randn(3).to(torch.bfloat16),
            "flags": torch.tensor([True, False]),
            "generator": torch.get_rng_state(),
            "counts": torch.tensor([2**62, -1]),
        }
        save_checkpoint(tmp_path / "best", tensors={"model": tensors, "nothing": {}}, state={})
        loaded = load_checkpoint(tmp_path / "best").tensors
        assert set(loaded) == {"model", "nothing"}
        assert set(loaded["model"]) == set(tensors)
        for name, tensor in tensors.items():
            came = loaded["model"][name]
            assert came.dtype == tensor.dtype, name
            assert came.shape == tensor.shape, name
            assert bits(came) == bits(tensor), name
        loaded["model"]["view"].zero_()
        assert loaded["model"]["whole"][1].tolist() == [4.0, 5.0, 6.0, 7.0]  # no longer shared

    def test_an_optimiser_goes_on_exactly(self, tmp_path: Path) -> None:
        def trained(steps: int, *, interrupt_at: int | None) -> list[torch.Tensor]:
            generator = torch.Generator().manual_seed(0)
            model = torch.nn.Linear(4, 3)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
            optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
            for step in range(steps):
                if step == interrupt_at:
                    slots = optimiser.state_dict()["state"]
                    flat = {f"{index}.{key}": value for index, slot in slots.items() for key, value in slot.items()}
                    save_checkpoint(
                        tmp_path / "best",
                        tensors={
                            "model": model.state_dict(),
                            "optimiser": flat,
                            "rng": {"torch": generator.get_state()},
                        },
                        state={"groups": optimiser.state_dict()["param_groups"]},
                    )
                    saved = load_checkpoint(tmp_path / "best")
                    model = torch.nn.Linear(4, 3)
                    model.load_state_dict(saved.tensors["model"])
                    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
                    again: dict[int, dict[str, torch.Tensor]] = {}
                    for name, value in saved.tensors["optimiser"].items():
                        index, key = name.split(".")
                        again.setdefault(int(index), {})[key] = value
                    optimiser.load_state_dict({"state": again, "param_groups": saved.state["groups"]})
                    generator = torch.Generator()
                    generator.set_state(saved.tensors["rng"]["torch"])
                optimiser.zero_grad()
                model(torch.randn(5, 4, generator=generator)).square().sum().backward()
                optimiser.step()
            return [parameter.detach() for parameter in model.parameters()]

        for straight, resumed in zip(trained(6, interrupt_at=None), trained(6, interrupt_at=3), strict=True):
            assert torch.equal(straight, resumed)

    def test_state_comes_back_equal_or_is_refused(self, tmp_path: Path) -> None:
        state = {"step": 2**70, "best": 0.1 + 0.2, "none": None, "names": ["ä", "\n"], "nested": {"pair": (1, 2.5)}}
        save_checkpoint(tmp_path / "best", tensors={}, state=state)
        assert load_checkpoint(tmp_path / "best").state == state | {"nested": {"pair": [1, 2.5]}}
        wrong: dict[str, Any]
        for wrong in ({"best": float("inf")}, {"epochs": {1: 2}}, {"path": tmp_path}, {"big": "x" * (1 << 21)}):
            with pytest.raises((TypeError, ValueError)):
                save_checkpoint(tmp_path / "best", tensors={}, state=wrong)
        assert load_checkpoint(tmp_path / "best").state["step"] == 2**70
        assert names(tmp_path) == ["best"]

    def test_equal_content_is_equal_bytes(self, tmp_path: Path) -> None:
        weights = {"b": torch.ones(2), "a": torch.zeros(3)}
        save_checkpoint(tmp_path / "x", tensors={"model": weights}, state={"p": 1, "q": 2})
        save_checkpoint(tmp_path / "y", tensors={"model": dict(reversed(weights.items()))}, state={"q": 2, "p": 1})
        assert load_checkpoint(tmp_path / "x").sha256 == load_checkpoint(tmp_path / "y").sha256
        assert (tmp_path / "x" / MANIFEST).read_bytes() == (tmp_path / "y" / MANIFEST).read_bytes()

    def test_digests_are_those_of_the_files(self, tmp_path: Path) -> None:
        save(tmp_path / "best", 1)
        digests = load_checkpoint(tmp_path / "best").sha256
        assert digests == verify_checkpoint(tmp_path / "best")
        assert set(digests) == {"model.safetensors", "state.json"}
        for name, digest in digests.items():
            assert digest == hashlib.sha256((tmp_path / "best" / name).read_bytes()).hexdigest()

    def test_modes_follow_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            save(tmp_path / "folder" / "best", 1)
            write_atomic(tmp_path / "folder" / "file", b"x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "folder" / "best").stat().st_mode) == 0o750
        for file in [*(tmp_path / "folder" / "best").iterdir(), tmp_path / "folder" / "file"]:
            assert stat.S_IMODE(file.stat().st_mode) == 0o640

    def test_stems_that_could_leave_the_directory_are_refused(self, tmp_path: Path) -> None:
        for stem in ("../model", "a/b", "", ".hidden", "model.pt", "a\n", "x" * 101):
            with pytest.raises(ValueError, match="stem"):
                save_checkpoint(tmp_path / "best", tensors={stem: {}}, state={})
        assert not list(tmp_path.iterdir())


class TestNewest:
    def test_numbers_order_and_other_names_do_not_count(self, tmp_path: Path) -> None:
        assert load_newest(tmp_path / "absent", warn=print) is None
        for name in ("best", "step-5", "step-00000009x", ".tmp-step-00000900-aaaaaaaa"):
            save(tmp_path / name, 900)
        (tmp_path / "step-00000950").write_bytes(b"a file")
        assert load_newest(tmp_path, warn=print) is None
        for step in (99_999_999, 100_000_000, 20):
            save(tmp_path / step_name(step), step)
        assert number(load_newest(tmp_path, warn=print)) == 100_000_000

    def test_damage_falls_back_and_the_warning_names_both(self, tmp_path: Path) -> None:
        for step in (1, 2, 3):
            save(tmp_path / step_name(step), step)
        flip(tmp_path / step_name(3) / "model.safetensors", 8 * 80)
        (tmp_path / step_name(2) / MANIFEST).unlink()
        warnings: list[str] = []
        assert number(load_newest(tmp_path, warn=warnings.append)) == 1
        assert len(warnings) == 2
        for warning, bad in zip(warnings, (3, 2), strict=True):
            assert str(tmp_path / step_name(bad)) in warning
            assert str(tmp_path / step_name(1)) in warning
        assert "incomplete" in warnings[1]

    def test_no_warning_without_damage(self, tmp_path: Path) -> None:
        save(tmp_path / step_name(1), 1)
        warnings: list[str] = []
        load_newest(tmp_path, warn=warnings.append)
        assert warnings == []

    def test_only_damage_is_an_error_and_not_a_fresh_start(self, tmp_path: Path) -> None:
        for step in (1, 2):
            save(tmp_path / step_name(step), step)
            flip(tmp_path / step_name(step) / "state.json", 3)
        with pytest.raises(RunError, match="none of the 2") as raised:
            load_newest(tmp_path, warn=print)
        assert step_name(2) in str(raised.value)

    def test_a_step_moved_aside_by_a_crash_is_found(self, tmp_path: Path) -> None:
        save(tmp_path / step_name(1), 1)
        save(tmp_path / step_name(2), 2)
        (tmp_path / step_name(2)).rename(tmp_path / f".old-{step_name(2)}-01234567")
        prune(tmp_path, keep=2)
        checkpoint = load_newest(tmp_path, warn=print)
        assert number(checkpoint) == 2
        assert checkpoint is not None
        assert checkpoint.path == tmp_path / step_name(2)

    def test_the_state_alone_is_read_and_verified_without_the_tensors(self, tmp_path: Path) -> None:
        assert newest_state(tmp_path / "absent", warn=print) is None
        for step in (1, 2):
            save(tmp_path / step_name(step), step)
        (tmp_path / step_name(2) / "model.safetensors").unlink()
        warnings: list[str] = []
        assert newest_state(tmp_path, warn=warnings.append) == {"number": 2}
        assert warnings == []
        flip(tmp_path / step_name(2) / "state.json", 3)
        assert newest_state(tmp_path, warn=warnings.append) == {"number": 1}
        assert len(warnings) == 1
        (tmp_path / step_name(1) / MANIFEST).unlink()
        with pytest.raises(RunError, match="none of the 2"):
            newest_state(tmp_path, warn=print)


class TestPrune:
    def test_the_newest_stay_and_temporaries_go(self, tmp_path: Path) -> None:
        for step in (1, 2, 3, 4):
            save(tmp_path / step_name(step), step)
        save(tmp_path / "best", 9)
        save(tmp_path / ".tmp-step-00000009-aaaaaaaa", 9)
        save(tmp_path / ".old-best-aaaaaaaa", 8)
        (tmp_path / ".tmp-metrics.jsonl-aaaaaaaa").write_text("x")
        (tmp_path / "metrics.jsonl").write_text("{}")
        prune(tmp_path, keep=2)
        assert names(tmp_path) == ["best", "metrics.jsonl", step_name(3), step_name(4)]
        prune(tmp_path / "absent", keep=2)

    def test_the_last_whole_one_is_never_removed(self, tmp_path: Path) -> None:
        for step in (1, 2, 3, 4, 5):
            save(tmp_path / step_name(step), step)
        for step in (3, 4, 5):
            flip(tmp_path / step_name(step) / "model.safetensors", 8 * 80)
        prune(tmp_path, keep=2)
        assert names(tmp_path) == [step_name(2), step_name(4), step_name(5)]
        assert number(load_newest(tmp_path, warn=lambda _: None)) == 2

    def test_without_a_whole_one_nothing_is_removed(self, tmp_path: Path) -> None:
        for step in (1, 2, 3):
            save(tmp_path / step_name(step), step)
            flip(tmp_path / step_name(step) / "model.safetensors", 8 * 80)
        prune(tmp_path, keep=1)
        assert len(names(tmp_path)) == 3

    def test_links_are_removed_and_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "file").write_text("x")
        folder = tmp_path / "stage1"
        folder.mkdir()
        (folder / ".tmp-link").symlink_to(tmp_path / "precious")
        prune(folder, keep=1)
        assert names(folder) == []
        assert (tmp_path / "precious" / "file").exists()

    def test_keeping_none_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="keep >= 1"):
            prune(tmp_path, keep=0)
