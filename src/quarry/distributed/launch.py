"""Work with launchers (torchrun, SLURM, DeepSpeed): agree on values, end all ranks together."""

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
from quarry.distributed.lost_ranks import Children, ended_rank, lost_rank, watches_children
from quarry.errors import Interrupted

logger = logging.getLogger(__name__)

STORE_TIMEOUT = timedelta(seconds=300)
GRACE_S = 10
"""How long the other ranks may take to end by themselves after rank 0 has failed."""

FREE_PORT_S = 1.0
"""How long the rendezvous port stays closed before it is used again, so that every rank sees it."""

PR_SET_PDEATHSIG = 1
"""Linux prctl option: the signal that a process receives when its parent ends."""

ENDS_WITH = "QUARRY_ENDS_WITH"
"""Environment variable of a sweep's job: the process id that the job must not outlive."""

LAUNCHER_VARIABLES = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "GLOBAL_RANK", "CROSS_RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
    *("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID"),
)
"""Variables by which launchers describe ranks to each other, beside torchrun's TORCHELASTIC_*."""


def settle_launcher() -> None:
    """Normalize the launcher's environment variables; call this first in every process.

    DeepSpeed's launcher sets CROSS_RANK where Lightning reads NODE_RANK. A child of Lightning's
    launcher is killed when its parent ends, however that happens: on GPUs it would otherwise wait
    in a collective until the timeout. A job of a sweep is killed when the sweep ends.
    """
    if "CROSS_RANK" in os.environ:
        os.environ.setdefault("NODE_RANK", os.environ["CROSS_RANK"])
    starter = os.environ.pop(ENDS_WITH, None)  # must not reach the processes that this one starts
    if (is_child_of_lightning() or starter is not None) and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if starter is not None and os.getppid() != int(starter):  # it has ended already
        os.kill(os.getpid(), signal.SIGKILL)


def is_child_of_lightning() -> bool:
    """Return whether Lightning's launcher started this rank, from the first one of its node."""
    is_launched = any(name in os.environ for name in world.RANK_VARIABLES)
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 and not is_launched


def environment_of_a_job() -> dict[str, str]:
    """Return the environment for a job, without this process's rank variables.

    The job then finds its own ranks.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER_VARIABLES and not name.startswith("TORCHELASTIC_")
    }


def agreed_with_first(value: str) -> str:
    """Return rank 0's value on all ranks of a launcher; without a launcher, `value` itself.

    For values on which ranks would differ, such as a directory named after the time. Works before
    the process group exists.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return _agreed_by_torchrun(value)
    meeting = _meeting()
    return value if meeting is None else _agreed_at(meeting, value)


def launched_by() -> tuple[str, int] | None:
    """Return the launcher that started this rank and its world size.

    None: there is no launcher, or it is Lightning's own, which starts the ranks that Quarry asks
    for.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        number = int(os.environ["WORLD_SIZE"])
        if "TORCHELASTIC_RUN_ID" in os.environ:
            return "torchrun", number
        # one rank: a cluster may set this in each container, and Lightning starts the others
        return ("the launcher (WORLD_SIZE)", number) if number > 1 else None
    slurm = _slurm()
    return None if slurm is None else ("SLURM", slurm.world_size())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Meeting:
    """Rendezvous of a run's ranks: address and port, usable before the process group exists."""

    address: str
    port: int
    rank: int
    world_size: int


def _meeting() -> _Meeting | None:
    """Return the rendezvous that SLURM or torch's variables (DeepSpeed's launcher) describe.

    None: there is neither, or only one rank.
    """
    if slurm := _slurm():
        meeting = _Meeting(
            address=slurm.main_address,
            port=slurm.main_port,
            rank=slurm.global_rank(),
            world_size=slurm.world_size(),
        )
    elif all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        meeting = _Meeting(
            address=os.environ["MASTER_ADDR"],
            port=int(os.environ["MASTER_PORT"]),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
    else:
        return None
    return meeting if meeting.world_size > 1 else None


def _slurm() -> Any:
    """Return Lightning's SLURM environment if SLURM started this process, else None."""
    if "SLURM_NTASKS" not in os.environ:  # without it Lightning, slow to import, finds nothing
        return None
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    return SLURMEnvironment() if SLURMEnvironment.detect() else None


def _agreed_at(meeting: _Meeting, value: str) -> str:
    """Exchange rank 0's value through a store on the rendezvous port.

    The process group will use the same port, so no rank continues before the port is free.
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
    store.wait([f"quarry/{rank}" for rank in range(1, meeting.world_size)])
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
    """Exchange rank 0's value through torchrun's store, which exists before the process group."""
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
    """End the children of Lightning's launcher when this process, which started them, fails.

    They would otherwise wait in a collective, on GPUs for as long as `timeout_s`. They get
    `GRACE_S` to report errors of their own. Ranks receive SIGTERM if a signal stopped this process.

    Raises:
        LostRankError: in place of the error of a closed connection; it names a child that was
            killed (out of memory, `kill -9`), which cannot report.
    """

    def children() -> Children:
        return getattr(strategy.launcher, "procs", None) or []

    try:
        with watches_children(children):
            yield
    except BaseException as error:
        is_stopped = isinstance(error, Interrupted) and not error.is_shared
        for child in children() if is_stopped else []:
            child.terminate()
        deadline = time.monotonic() + GRACE_S
        while any(child.poll() is None for child in children()) and time.monotonic() < deadline:
            time.sleep(0.05)
        lost = None if is_stopped else lost_rank(error, children())
        is_killed = any((child.poll() or 0) < 0 for child in children())
        if is_killed and lost is None and not is_stopped:
            logger.error(ended_rank(children()))
        for child in children():
            child.kill()
        if lost is not None:
            raise lost from error
        raise
