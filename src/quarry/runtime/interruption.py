"""End a run on Ctrl-C or SIGTERM: raise at once, print one line, use an own exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from quarry.distributed import world
from quarry.distributed.launch import is_child_of_lightning
from quarry.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)

GRACE_S = 20.0
"""How long an interrupted run may take to clean up before it is ended."""


@contextmanager
def raises_on_signals(how_to_continue: Callable[[], str]) -> Iterator[None]:
    """Raise `Interrupted` in the main thread on SIGINT or SIGTERM, whatever the thread does.

    A second signal, or `GRACE_S` after the first, ends the process: an exception can be swallowed,
    and clean-up can wait for another rank. Outside the main thread nothing changes.

    Args:
        how_to_continue: called when a signal arrives; its sentences end the message.
    """
    errors: list[Interrupted] = []
    timers: list[threading.Timer] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if errors:
            end_interrupted(errors[0])
        name = signal.Signals(number).name
        error = Interrupted(f"{name}. {how_to_continue()}", number=number, is_shared=False)
        errors.append(error)
        timer = threading.Timer(GRACE_S, end_interrupted, [error])
        timer.daemon = True
        timer.start()
        timers.append(timer)
        raise error

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in old.items():
            signal.signal(number, handler)


def end_interrupted(error: Interrupted) -> NoReturn:
    """End the process at once, with the message (on rank 0) and the signal's exit code.

    Python's own clean-up is skipped: it waits for threads and, with gloo, aborts. A child of
    Lightning's launcher ends with 0: on another code Lightning kills the process that reports.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            stream.flush()
    if world.is_launched_first():
        with contextlib.suppress(OSError):
            os.write(2, f"\nInterrupted: {error}\n".encode())
    os._exit(0 if is_child_of_lightning() else error.exit_code)
