"""What processes need of their launcher: one run directory for all, and an end for all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore

from quarry.distributed import world

STORE_TIMEOUT_S = 300
GRACE_S = 10
"""How long processes may take to end by themselves once the first one has failed."""


def agreed_with_first(value: str) -> str:
    """Under torchrun: the first process's value, in all; elsewhere the value itself.

    For what processes would each make up by themselves, such as a directory named after the time.
    torchrun keeps a store that can be asked before the processes know one another.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return value
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(seconds=STORE_TIMEOUT_S),
    )
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    key = f"quarry/{os.environ['TORCHELASTIC_RUN_ID']}/{restarts}"
    if world.is_launched_first():
        store.set(key, value)
    return str(store.get(key).decode())


@contextmanager
def ends_children(strategy: Any) -> Iterator[None]:
    """Where this process started the others (Lightning's launcher): ends them when it fails.

    They would wait for it in a collective, on GPUs for as long as `timeout_s`. Those that have
    failed likewise get the time to say so.
    """
    try:
        yield
    except BaseException:
        children = getattr(strategy.launcher, "procs", None) or []
        deadline = time.monotonic() + GRACE_S
        while any(child.poll() is None for child in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        for child in children:
            child.kill()
        raise
