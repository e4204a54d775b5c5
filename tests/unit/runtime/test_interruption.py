"""A signal ends a run at once, or soon after: message, exit code, handlers given back."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import NoReturn

import pytest

from quarry.errors import Interrupted
from quarry.runtime import interruption
from quarry.runtime.interruption import end_interrupted, raises_on_signals


class Ended(BaseException):
    """Stands in for the end of the process."""


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes that the process would have ended with."""
    codes: list[int] = []

    def leave(code: int) -> NoReturn:
        codes.append(code)
        raise Ended

    monkeypatch.setattr(os, "_exit", leave)
    return codes


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_is_an_exception(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, raises_on_signals(lambda: "Run it again."):
        signal.raise_signal(number)
    assert not isinstance(caught.value, Exception), "an evaluation would continue with its next set"
    assert str(caught.value) == f"{number.name}. Run it again."
    assert (caught.value.exit_code, caught.value.is_shared) == (code, False)
    assert signal.getsignal(number) is before
    timers = [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
    assert all(one.finished.is_set() for one in timers), "nothing ends the process later"


def test_it_comes_while_the_main_thread_waits() -> None:
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    start = time.monotonic()
    timer.start()
    with pytest.raises(Interrupted), raises_on_signals(lambda: ""):
        time.sleep(30)
    assert time.monotonic() - start < 10


def test_a_second_signal_ends_the_process(
    ends: list[int], capfd: pytest.CaptureFixture[str]
) -> None:

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:  # what cleans up hangs, and somebody presses Ctrl-C
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Ended), raises_on_signals(lambda: "Run it again."):
        work()
    assert ends == [143]
    assert capfd.readouterr().err == "\nInterrupted: SIGTERM. Run it again.\n"


def test_what_swallows_the_exception_is_ended_after_a_while(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    monkeypatch.setattr(interruption, "GRACE_S", 0.05)
    with raises_on_signals(lambda: "Run it again."):
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:  # noqa: BLE001
            deadline = time.monotonic() + 20
            while not ends and time.monotonic() < deadline:
                time.sleep(0.01)
    assert ends == [143]
    assert capfd.readouterr().err == "\nInterrupted: SIGTERM. Run it again.\n"


def test_other_ranks_end_in_silence(
    ends: list[int], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = Interrupted("SIGTERM.", number=signal.SIGTERM, is_shared=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(Ended):  # Lightning kills the first rank where a child has another code
        end_interrupted(error)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(Ended):
        end_interrupted(error)
    assert ends == [0, 143]
    assert capfd.readouterr().err == ""


def test_other_threads_leave_signals_alone() -> None:
    found = []

    def work() -> None:
        with raises_on_signals(lambda: ""):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]
