"""Calls run ahead: in order, so far and no further, and errors arrive where their result would."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from quarry.runtime.ahead import run_ahead


def wait_until(condition: object, timeout_s: float = 5) -> None:
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.001)


@pytest.mark.parametrize("num_ahead", [0, 1, 3, 100])
def test_results_in_order(num_ahead: int) -> None:
    assert list(run_ahead(str, range(20), num_ahead=num_ahead)) == [str(i) for i in range(20)]
    assert list(run_ahead(str, [], num_ahead=num_ahead)) == []


def test_works_while_the_reader_works_and_stops_at_the_limit() -> None:
    begun: list[int] = []
    with closing(run_ahead(begun.append, range(100), num_ahead=3)) as results:
        next(results)
        wait_until(lambda: len(begun) == 4)
        time.sleep(0.02)
        assert begun == [0, 1, 2, 3]


def test_an_error_arrives_at_its_place() -> None:
    def reciprocal(number: int) -> float:
        return 1 / number

    results = run_ahead(reciprocal, [2, 1, 0, 4], num_ahead=4)
    assert [next(results), next(results)] == [0.5, 1]
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_leaving_early_drops_what_has_not_begun() -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def call(number: int) -> None:
        begun.append(number)
        if number:
            go_on.wait(5)

    def interrupted() -> None:
        with closing(run_ahead(call, range(100), num_ahead=50)) as results:
            next(results)
            wait_until(lambda: len(begun) == 2)
            threading.Timer(0.02, go_on.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert begun == [0, 1]
