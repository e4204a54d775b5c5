"""Lend GPUs of this machine to jobs that run at once, each to one job at a time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from quarry.runtime.lock import locked_if_free

POLL_S = 0.5


def gpu_locks() -> Path:
    """Return the folder for locks on this machine's GPUs, one for all sweeps of this user."""
    return Path(tempfile.gettempdir()) / f"quarry-gpus-{os.getuid()}"


@contextmanager
def lent_gpus(num: int, *, gpus: Sequence[str], folder: Path) -> Iterator[tuple[str, ...]]:
    """Wait until `num` of `gpus` are free, and lend them; a process that is killed frees its own.

    Args:
        folder: of the locks, one for all who share the GPUs.
    """
    assert num <= len(gpus)
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        with ExitStack() as locks:
            held: list[str] = []
            for gpu in gpus:
                if len(held) == num:
                    break
                trial = ExitStack()
                if trial.enter_context(locked_if_free(folder / f"gpu-{gpu}")):
                    locks.push(trial)
                    held.append(gpu)
                else:
                    trial.close()
            if len(held) == num:
                yield tuple(held)
                return
        time.sleep(POLL_S)
