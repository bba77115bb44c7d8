"""The quick forms of the survival tests in `benchmarks/`: kills, signals, resumed steps, a full disk."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import full_disk
import killed_runs
import pytest
import resumed_steps
import stopped_runs
from plain_checkpoints import save_plainly
from stopped_runs import SIGNALS
from torture_recipes import SCENARIOS
from torture_runs import different, fingerprint, leftovers


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """What a command line changes of this process must be back afterwards."""
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(("name", "kills"), [("image codebook (EMA)", 10), ("image prior", 6), ("sound prior", 4)])
def test_killed_runs_end_with_the_same_result(tmp_path: Path, name: str, kills: int) -> None:
    result = killed_runs.torture(name, SCENARIOS[name], tmp_path / "run", count=kills, seed=1)
    assert result.faults == []
    assert result.kills == kills


def test_a_plain_save_loses_a_run_that_the_product_keeps(tmp_path: Path) -> None:
    """Killed between two of its three files, the control has the weights of one step and the state of another."""
    case = killed_runs.prepare(SCENARIOS["image codebook (EMA)"], tmp_path / "run")
    for plain in (False, True):
        run = case.fresh_run("killed")

        def die_while_saving(plain: bool = plain) -> None:
            import os
            import signal

            if plain:
                save_plainly()
                holder, name, call = Path, "write_text", 2  # state.json of the second checkpoint
            else:
                import twostage.storage.checkpoint

                holder, name, call = twostage.storage.checkpoint, "render_manifest", 2 + 2  # best/ is saved as well
            real, seen = getattr(holder, name), [0]

            def dying(*arguments: object, **options: object) -> object:
                seen[0] += 1
                if seen[0] == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            setattr(holder, name, dying)

        started = killed_runs.start(case.words(run), log=tmp_path / "log", inside=die_while_saving)
        assert started.wait().code == -9
        again = killed_runs.start(case.words(run), log=tmp_path / "log", inside=save_plainly if plain else lambda: None)
        ended = again.wait()
        lost = ended.code != 0 or bool(different(case.whole, fingerprint(run)))
        assert lost == plain, ended.said


def test_every_phase_names_a_function_that_is_there() -> None:
    for name, phase in stopped_runs.PHASES.items():
        module = import_module(phase.module)
        owner = getattr(module, phase.owner) if phase.owner else module
        assert callable(getattr(owner, phase.function, None)), name


@pytest.mark.parametrize(
    ("phases", "kind"),
    [
        (["loading", "validation"], "SIGTERM"),
        (["k-means", "writing a checkpoint"], "SIGINT"),
        (["training", "code extraction"], "double SIGINT"),
    ],
)
def test_signals_in_every_kind_of_phase(tmp_path: Path, phases: list[str], kind: str) -> None:
    found = stopped_runs.torture(tmp_path, names=phases, rounds=1, seed=1, kinds={kind: SIGNALS[kind]})
    assert [fault for faults in found.values() for fault in faults if fault] == []
    assert len(found) == len(phases)


@pytest.mark.parametrize("name", ["image codebook (loss)", "VIMCO", "sound codebook", "sound decoder"])
def test_resumed_steps_change_no_bit(tmp_path: Path, name: str) -> None:
    result = resumed_steps.torture(name, SCENARIOS[name], tmp_path / "run", count=3, seed=1)
    assert result.faults == []
    assert result.points == 3


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    found = full_disk.torture(tmp_path / "run", levels=2, mounted=False)
    assert [level.fault for level in found] == ["", ""]
    assert found[0].refused
    assert found[0].begun == 1


def test_what_goes_wrong_is_seen(tmp_path: Path) -> None:
    """A changed byte, a missing file and an unfinished one."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "codes").write_bytes(b"same")
    (tmp_path / "b" / ".tmp-codes-00000000").write_bytes(b"")
    assert leftovers(tmp_path / "b") == [".tmp-codes-00000000"]
    (tmp_path / "b" / "codes").write_bytes(b"other")
    (tmp_path / "a" / "config.toml").write_bytes(b"")
    assert different(fingerprint(tmp_path / "a"), fingerprint(tmp_path / "b")) == [
        ".tmp-codes-00000000",
        "codes",
        "config.toml",
    ]
