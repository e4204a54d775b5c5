"""Ask for rank and world size, and exchange small values among the ranks.

With one rank, or before the process group exists, every function returns its own input.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from quarry.errors import SharedError, UserError

Value = TypeVar("Value")

RANK_VARIABLES = ("RANK", "SLURM_PROCID")
"""Variables in which torchrun, DeepSpeed's launcher and SLURM put the rank."""

RANK_PARTS = ("NODE_RANK", "LOCAL_RANK")
"""Variables in which Lightning's own launcher puts the node and the rank on that node."""

SETTLE_S = 0.2
"""How long the threads of collectives get to release their tensors."""


def backend() -> str | None:
    """Return torch's name of the communication backend: NCCL for GPUs beside gloo for CPUs.

    Reading a number that went through NCCL waits for everything launched on the GPU. Several such
    waits per optimizer step cost a large part of what a second GPU brings.

    Returns:
        None: without GPUs there is one choice, and Lightning makes it.
    """
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else None


def is_launched_first() -> bool:
    """Return whether this is rank 0, which writes files and messages to the user.

    Known from the environment, before the process group exists.
    """
    for names in (RANK_VARIABLES, RANK_PARTS):
        found = [os.environ[name] for name in names if name in os.environ]
        if found:
            return all(int(value) == 0 for value in found)
    return True


def repeats_the_first() -> bool:
    """Return whether a launcher started this rank beside a first one of its node.

    Both find the same mistakes in a configuration, and the first one tells them.
    """
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    return int(local) > 0 and any(name in os.environ for name in RANK_VARIABLES)


def rank() -> int:
    """Return this process's rank in the process group."""
    return dist.get_rank() if _is_joined() else 0


def size() -> int:
    """Return the world size."""
    return dist.get_world_size() if _is_joined() else 1


def leave() -> None:
    """Destroy the process group; all ranks call it when a run ends in order, as NCCL requires.

    A gloo collective returns before its thread has released the tensors, for which the thread
    needs the interpreter's lock. A thread that asks for the lock while the interpreter ends aborts
    the process ("terminate called without an active exception"). Such threads outlive the group
    where DDP or DeepSpeed still hold it, so they get `SETTLE_S`.
    """
    if _is_joined():
        _thread_group.cache_clear()
        dist.destroy_process_group()
        time.sleep(SETTLE_S)


def barrier() -> None:
    """Wait until all ranks have called this."""
    if size() > 1:
        dist.barrier()


def total(values: Tensor) -> Tensor:
    """Return the elementwise sum over all ranks, bit-identical on each."""
    if size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values


def stacked(values: Tensor) -> Tensor:
    """Return the tensors of all ranks, [world_size, ...]; they must have one shape."""
    if size() == 1:
        return values[None]
    every = values.new_empty(size() * values.shape[0], *values.shape[1:])
    dist.all_gather_into_tensor(every, values.contiguous())
    return every.view(size(), *values.shape)


def largest(number: int) -> int:
    """Return the largest of the ranks' numbers."""
    return max(gathered(number))


def gathered(value: Value, *, group: dist.ProcessGroup | None = None) -> list[Value]:
    """Return the objects of all ranks, in rank order. For small ones: they are pickled.

    They travel between CPUs (see `backend`), so no rank waits for its GPU.

    Args:
        group: a group of all ranks; None: that of the run.
    """
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value, group=group)
    return values


def gathered_by_thread() -> Callable[[Any], list[Any]]:
    """Return a `gathered` that one thread beside the main one may call at any time.

    Collectives of a process group must come in the same order on all ranks, which two threads
    cannot promise: the thread has its own group. All ranks' main threads call this at one point.
    """
    if size() == 1:
        return gathered
    assert dist.group.WORLD is not None
    return partial(gathered, group=_thread_group(dist.group.WORLD))


def first_does(action: Callable[[], Value]) -> Value:
    """Run `action` on rank 0 and return its result on all ranks; the others wait.

    Raises:
        UserError, RuntimeError: on every rank, what `action` raised on rank 0.
    """
    if size() == 1:
        return action()
    outcome: list[Any] = [None, None]
    error: Exception | None = None
    if rank() == 0:
        try:
            outcome[0] = action()
        except Exception as raised:  # noqa: BLE001 (the others must not wait forever)
            error, outcome[1] = raised, (isinstance(raised, UserError), str(raised))
    dist.broadcast_object_list(outcome)
    if error is not None:
        raise error
    if outcome[1] is not None:
        is_users, message = outcome[1]
        raise SharedError(message) if is_users else RuntimeError(f"On rank 0: {message}")
    value: Value = outcome[0]
    return value


@lru_cache(maxsize=1)
def _thread_group(run: dist.ProcessGroup) -> dist.ProcessGroup:
    """Return a second gloo group of all ranks, with the timeout of the run's group."""
    timeout = run._get_backend(torch.device("cpu")).options._timeout
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=timeout)
    return group


def _is_joined() -> bool:
    return bool(dist.is_available() and dist.is_initialized())
