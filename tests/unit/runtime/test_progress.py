"""Lines at their times with the numbers of that time; bars and log lines on a terminal."""

from __future__ import annotations

import io
import logging

import pytest

from quarry.runtime import progress
from quarry.runtime.progress import ConsoleHandler, Progress, duration, tracked


class Clock:
    """A time that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged so far."""
    caplog.set_level(logging.INFO, logger=progress.logger.name)

    class Messages(list[str]):
        def __eq__(self, other: object) -> bool:
            return [record.getMessage() for record in caplog.records] == other

        __hash__ = None  # type: ignore[assignment]

    return Messages()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_every_interval_and_the_last_state(clock: Clock, lines: list[str]) -> None:
    with Progress(label="scifact corpus", total=4_000, units="texts", clock=clock) as shown:
        expected = []
        for second in range(1, 41):
            clock.now = 100 + 2 * second
            shown.add(100, num_tokens=30_840)
            if second == 15:
                expected.append(
                    "scifact corpus: 1,500 of 4,000 texts (37.5 %), 15,420 tokens/s, 50 s left"
                )
            if second == 30:
                expected.append(
                    "scifact corpus: 3,000 of 4,000 texts (75.0 %), 15,420 tokens/s, 20 s left"
                )
            assert lines == expected
    expected.append("scifact corpus: 4,000 of 4,000 texts (100.0 %), 15,420 tokens/s, after 1 min")
    assert lines == expected
    shown.close()
    shown.add(1)
    assert lines == expected


def test_what_is_over_in_less_logs_nothing(clock: Clock, lines: list[str]) -> None:
    for _ in tracked(range(5), label="queries", units="queries", clock=clock):
        clock.now += 5
    assert lines == []


def test_units_are_the_rate_where_there_are_no_tokens(clock: Clock, lines: list[str]) -> None:
    for number in tracked(iter(range(3)), label="bm25", units="queries", clock=clock):
        clock.now += 40 if number == 0 else 16
    assert lines == [
        "bm25: 1 queries, 0.025 queries/s",
        "bm25: 3 queries, 0.0625 queries/s",
        "bm25: 3 queries, 0.0417 queries/s, after 1 min",
    ]


def test_the_first_units_are_no_part_of_the_rate(clock: Clock, lines: list[str]) -> None:
    shown = Progress(label="x", total=100, units="texts", clock=clock)
    clock.now += 20  # compiling
    shown.add(1)
    clock.now += 10
    shown.add(9)
    assert lines == ["x: 10 of 100 texts (10.0 %), 0.9 texts/s, 2 min left"]


def test_excluded_time_is_no_part_of_the_rate_and_counts_for_the_time_left(
    clock: Clock, lines: list[str]
) -> None:
    shown = Progress(total=100, units="steps", clock=clock)
    shown.add(0, num_tokens=7)  # a part of a step
    shown.add(1)
    clock.now += 100
    shown.exclude(90)
    shown.add(9, num_tokens=500)
    assert lines == ["step 10 of 100 (10.0 %), 50 tokens/s, 17 min left"]


def test_details_are_asked_for_only_where_they_are_shown(clock: Clock, lines: list[str]) -> None:
    calls = []

    def details() -> dict[str, str]:
        calls.append(clock.now)
        return {"loss": "0.412"}

    shown = Progress(total=10, units="steps", details=details, clock=clock)
    for _ in range(4):
        clock.now += 11
        shown.add(1, shows_details=True)  # for bars
    assert calls == [133]
    assert lines == ["step 3 of 10 (30.0 %), loss 0.412, 0.0909 steps/s, 1 min left"]


def test_what_was_done_before_has_no_part_in_the_time_left(clock: Clock, lines: list[str]) -> None:
    shown = Progress(label="x", total=100, units="texts", num_done=50, clock=clock)
    clock.now += 30
    shown.add(10)
    assert lines == ["x: 60 of 100 texts (60.0 %), 0.333 texts/s, 2 min left"]


def test_each_call_counts_for_all_ranks(clock: Clock, lines: list[str]) -> None:
    with Progress(label="x", total=100, units="texts", num_ranks=4, clock=clock) as shown:
        clock.now += 30
        shown.add(20, num_tokens=300)
    assert lines == [
        "x: 80 of 100 texts (80.0 %), 40 tokens/s, 8 s left",
        "x: 100 of 100 texts (100.0 %), 40 tokens/s, after 30 s",
    ]


def test_other_ranks_say_nothing(
    clock: Clock, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with Progress(label="x", total=100, units="texts", clock=clock) as shown:
        clock.now += 100
        shown.add(20)
    assert lines == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (58 * 60, "58 min"),
        (3599, "1 h 0 min"),
        (3.34 * 3600, "3 h 20 min"),
        (52 * 3600, "2 d 4 h"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_log_line_stands_above_the_bar(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "BAR_DELAY_S", 0)
    handler = ConsoleHandler(terminal)
    record = logging.makeLogRecord({"msg": "a line"})
    with Progress(total=10, units="steps", details=lambda: {"loss": "0.412"}, clock=clock) as shown:
        shown.relabel("epoch 1 of 2")
        shown.add(3, shows_details=True)
        handler.emit(record)
    before, after = terminal.getvalue().split("a line\n")
    assert before.rpartition("\r")[2].strip() == "", "the bar is wiped from the line"
    assert after.lstrip("\r").startswith("epoch 1 of 2")
    assert "3/10" in after
    assert "loss=0.412" in after
    assert lines == []


def test_without_a_terminal_a_line_is_a_line() -> None:
    stream = io.StringIO()
    ConsoleHandler(stream).emit(logging.makeLogRecord({"msg": "a line"}))
    assert stream.getvalue() == "a line\n"
