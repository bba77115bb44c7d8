"""Files read by several threads: in order, and never all of them waiting at once."""

import os
import time
from threading import get_ident

import pytest

from twostage.data import reading as threads
from twostage.data.reading import mapper


@pytest.mark.parametrize(("cores", "threaded", "several"), [(4, True, True), (4, False, False), (1, True, False)])
def test_results_come_in_order_of_one_block_after_the_other(
    monkeypatch: pytest.MonkeyPatch, cores: int, threaded: bool, several: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(threads, "BLOCK_ITEMS", 8)
    begun, workers = [], set()

    def work(number: int, letter: str) -> str:
        begun.append(number)
        workers.add(get_ident())
        time.sleep(0.002 * (number % 3))
        return f"{letter}{number}"

    with mapper(threaded=threaded) as mapped:
        for index, made in enumerate(mapped(work, range(30), "abc" * 10)):
            assert made == f"{'abc'[index % 3]}{index}"
            assert max(begun) < (index // 8 + 1) * 8
    assert sorted(begun) == list(range(30))
    assert (len(workers) > 1) == several


def test_an_error_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.002)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), mapper() as mapped:
        list(mapped(work, range(900)))
    assert len(begun) < 100
