"""What processes need of their launcher: one run directory for all, and an end for all."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore

from quarry.distributed import world
from quarry.errors import Interrupted

logger = logging.getLogger(__name__)

STORE_TIMEOUT = timedelta(seconds=300)
GRACE_S = 10
"""How long processes may take to end by themselves once the first one has failed."""

FREE_PORT_S = 1.0
"""For how long the port that processes met at is closed, so that each of them sees it."""

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when the one that started it ends."""

ENDS_WITH = "QUARRY_ENDS_WITH"
"""Tells a job of a sweep the process that it must not outlive."""

LAUNCHER_VARIABLES = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "GLOBAL_RANK", "CROSS_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
    *("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID"),
)
"""What launchers tell processes of one another. Beside them torchrun's TORCHELASTIC_*."""


def settle_launcher() -> None:
    """To be called first in every process: takes over what its launcher says in words of its own.

    DeepSpeed's launcher calls the node CROSS_RANK, Lightning NODE_RANK. And a child of Lightning's
    launcher shall not outlive the process that started it, however that ended: on GPUs it would
    wait for it as long as processes wait for one another. Nor shall a job outlive its sweep.
    """
    if "CROSS_RANK" in os.environ:
        os.environ.setdefault("NODE_RANK", os.environ["CROSS_RANK"])
    starter = os.environ.pop(ENDS_WITH, None)  # not for the processes that this one starts
    if (is_child_of_lightning() or starter is not None) and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if starter is not None and os.getppid() != int(starter):  # it has ended already
        os.kill(os.getpid(), signal.SIGKILL)


def is_child_of_lightning() -> bool:
    """Return whether Lightning's launcher started this rank, from the first one of its node."""
    is_launched = any(name in os.environ for name in world.RANK_VARIABLES)
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 and not is_launched


def environment_of_a_job() -> dict[str, str]:
    """That of this process without what a launcher told it: a job finds its own processes."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER_VARIABLES and not name.startswith("TORCHELASTIC_")
    }


def agreed_with_first(value: str) -> str:
    """The first process's value, in all that a launcher has started; without one the value itself.

    For what processes would each make up by themselves, such as a directory named after the time.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return _agreed_by_torchrun(value)
    meeting = _meeting()
    return value if meeting is None else _agreed_at(meeting, value)


def launched_by() -> tuple[str, int] | None:
    """The launcher that started this process and others, and how many it says they are; None:
    there is none, or it is Lightning's own, which starts what it is told."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        number = int(os.environ["WORLD_SIZE"])
        if "TORCHELASTIC_RUN_ID" in os.environ:
            return "torchrun", number
        # one process: a cluster may say so of each container, and Lightning starts the others
        return ("the launcher (WORLD_SIZE)", number) if number > 1 else None
    slurm = _slurm()
    return None if slurm is None else ("SLURM", slurm.world_size())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Meeting:
    """Where the processes of a run are going to find one another, and can do so before."""

    address: str
    port: int
    rank: int
    num_processes: int


def _meeting() -> _Meeting | None:
    """As SLURM says it, or a launcher that sets torch's variables, such as DeepSpeed's."""
    if slurm := _slurm():
        meeting = _Meeting(
            address=slurm.main_address,
            port=slurm.main_port,
            rank=slurm.global_rank(),
            num_processes=slurm.world_size(),
        )
    elif all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        meeting = _Meeting(
            address=os.environ["MASTER_ADDR"],
            port=int(os.environ["MASTER_PORT"]),
            rank=int(os.environ["RANK"]),
            num_processes=int(os.environ["WORLD_SIZE"]),
        )
    else:
        return None
    return meeting if meeting.num_processes > 1 else None


def _slurm() -> Any:
    """Lightning's view of SLURM, where it started this process; else None."""
    if "SLURM_NTASKS" not in os.environ:  # without it Lightning, slow to import, finds nothing
        return None
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    return SLURMEnvironment() if SLURMEnvironment.detect() else None


def _agreed_at(meeting: _Meeting, value: str) -> str:
    """The first process lends its port to a store, until all have read from it.

    The processes will find one another at the same port: nobody goes on before it is free.
    """
    store = TCPStore(
        meeting.address,
        meeting.port,
        is_master=meeting.rank == 0,
        wait_for_workers=False,
        timeout=STORE_TIMEOUT,
    )
    if meeting.rank > 0:
        agreed = store.get("quarry").decode()
        store.set(f"quarry/{meeting.rank}", "read")
        deadline = time.monotonic() + GRACE_S
        while _is_open(meeting) and time.monotonic() < deadline:
            time.sleep(FREE_PORT_S / 20)
        return str(agreed)
    store.set("quarry", value)
    store.wait([f"quarry/{rank}" for rank in range(1, meeting.num_processes)])
    del store
    time.sleep(FREE_PORT_S)
    return value


def _is_open(meeting: _Meeting) -> bool:
    try:
        socket.create_connection((meeting.address, meeting.port), timeout=1).close()
    except OSError:
        return False
    return True


def _agreed_by_torchrun(value: str) -> str:
    """torchrun keeps a store that can be asked before the processes know one another."""
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        wait_for_workers=False,
        timeout=STORE_TIMEOUT,
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
    failed likewise get the time to say so. Of one that could not (out of memory, `kill -9`) the log
    tells: here is only seen that it is gone. A signal that stopped this process is passed on.
    """
    try:
        yield
    except BaseException as error:
        children = getattr(strategy.launcher, "procs", None) or []
        is_stopped = isinstance(error, Interrupted) and not error.is_shared
        for child in children if is_stopped else []:
            child.terminate()
        deadline = time.monotonic() + GRACE_S
        while any(child.poll() is None for child in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        for rank, child in enumerate(children, start=1):
            if child.poll() is not None and child.returncode < 0 and not is_stopped:
                name = signal.Signals(-child.returncode).name
                logger.error("Process %d of this node was ended by %s", rank, name)
        for child in children:
            child.kill()
        raise
