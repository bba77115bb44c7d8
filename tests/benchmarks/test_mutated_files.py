"""Quick form of `benchmarks/survival/mutated_files.py`: some twenty mutations of every kind and the quick bombs."""

import tracemalloc
from pathlib import Path

import mutated_files
import pytest
from memory_bombs import Bomb, bombs
from mutated_files import Result, run_bomb, run_kind, table
from mutation_targets import KINDS

from twostage.errors import RunError


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_refused_or_replaced_or_says_the_same(tmp_path: Path, kind: str) -> None:
    result = run_kind(kind, count=24, seed=1, folder=tmp_path)
    assert result.faults == []
    assert result.mutations == 24
    allowed = {"refused", "fell back", "equal"}
    assert set(result.outcomes) <= allowed | ({"another whole file"} if "sealed" in kind else {"another recipe"})


@pytest.fixture(scope="module")
def bombs_by_name(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bomb]:
    return {bomb.path.stem: bomb for bomb in bombs(tmp_path_factory.mktemp("bombs"))}


@pytest.mark.parametrize(
    "name", ["tensors huge", "tensors overflow", "manifest", "nested header", "header of lists", "names", "dotted keys"]
)
def test_bombs(bombs_by_name: dict[str, Bomb], name: str) -> None:
    bomb = bombs_by_name[name]
    tracemalloc.start()
    result = run_bomb(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dict(result.outcomes) == {"refused": 1}
    assert peak < bomb.size + mutated_files.ALLOWED_BYTES


def test_what_goes_wrong_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers that let everything through, or raise what nobody expects."""
    monkeypatch.setattr("mutation_targets.load_newest", lambda *_, **__: (_ for _ in ()).throw(KeyError("step")))
    with pytest.raises(KeyError):
        run_kind("manifest", count=1, seed=0, folder=tmp_path / "a")
    result = Result("x")
    for number, outcome in enumerate(["accepted", "escaped: KeyError", "refused"]):
        mutated_files._note(result, str(number), outcome)
    assert result.faults == ["0: accepted", "1: escaped: KeyError"]
    assert not result.passed
    assert "| x | 3 |" in table([result], count=3, seed=0)

    def raising(message: str) -> str:
        raise RunError(message)

    assert mutated_files._outcome(lambda: raising("expected a whole file, but it is none")) == "refused"
    assert mutated_files._outcome(lambda: raising("expected a\nwhole file, but it is none")).startswith("no sentence")
