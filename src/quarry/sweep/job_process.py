"""Run a job of a sweep as a process of its own: start it, watch it, stop it with the sweep, and end
what it leaves behind."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO

from quarry.distributed.launch import ENDS_WITH, environment_of_a_job

logger = logging.getLogger(__name__)

GRACE_S = 120
"""Seconds that a job may take to save itself after it was asked to stop."""

NUM_TAIL_LINES = 200
NUM_ERROR_LINES = 12

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class EndedProcess:
    """Describe how a process ended.

    Attributes:
        code: its exit code; the negative number of the signal that ended it.
        tail: the last lines of its standard error.
        stopped_by: the signal that this process received meanwhile and forwarded.
    """

    code: int
    tail: str
    stopped_by: str | None

    @property
    def error(self) -> str:
        """Return the message of an error of ours, else the last lines."""
        if self.code < 0:
            return f"ended by signal {-self.code} ({signal.Signals(-self.code).name})"
        message = self.tail.rpartition("\nError: ")[2] if "\nError: " in self.tail else ""
        lines = [line for line in (message or self.tail).splitlines() if line.strip()]
        shown = lines[:NUM_ERROR_LINES] if message else lines[-1:]
        return "\n".join(shown) or f"exit code {self.code}, and nothing was said"


def run_process(command: Sequence[str], *, environment: Mapping[str, str]) -> EndedProcess:
    """Run a command in a process group of its own, to its end; forward its output to ours.

    It ends when this process ends, even if that is killed (Linux). SIGINT and SIGTERM are forwarded
    as SIGINT, to the command alone: it stops its children. A second one, or `GRACE_S`, ends the
    group. An exception from a signal handler of a launcher stops the command in the same way.

    Args:
        environment: added to ours, from which variables of launchers are removed.
    """
    process = subprocess.Popen(
        command,
        env=environment_of_a_job() | {ENDS_WITH: str(os.getpid())} | dict(environment),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    assert process.stderr is not None
    tail: deque[str] = deque(maxlen=NUM_TAIL_LINES)
    reader = threading.Thread(target=_pass_on, args=(process.stderr, tail), daemon=True)
    reader.start()
    try:
        with _signals_passed_on(process) as received:
            code = process.wait()
    except BaseException:  # from a launcher's signal handler: its time limit is reached
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        raise
    finally:
        _end_group(process)
        process.wait()
        reader.join(timeout=10)
    return EndedProcess(code=code, tail="".join(tail), stopped_by=received[0] if received else None)


@contextmanager
def _signals_passed_on(process: subprocess.Popen[bytes]) -> Iterator[list[str]]:
    """Forward signals to the command, and yield the list of those that came."""
    received: list[str] = []
    timer = threading.Timer(GRACE_S, _end_group, [process])
    timer.daemon = True

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        if len(received) > 1:
            _end_group(process)
            return
        logger.warning("%s: the job is stopped (once more: at once, unsaved)", received[0])
        process.send_signal(signal.SIGINT)
        timer.start()

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    old = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield received
    finally:
        timer.cancel()
        for number, handler in old.items():
            signal.signal(number, handler)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the command and all its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _pass_on(stream: IO[bytes], tail: deque[str]) -> None:
    """Copy standard error line by line, and remember the last ones."""
    for line in stream:
        text = line.decode("utf-8", "replace")
        tail.append(text)
        sys.stderr.write(text)
        sys.stderr.flush()
