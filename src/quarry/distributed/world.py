"""The processes of a run: which one this is, and small numbers and objects that all must know.

In a run of one process, or before its process group is there, every function here is an identity.
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
"""Where torchrun, DeepSpeed's launcher and SLURM say which process this is."""

RANK_PARTS = ("NODE_RANK", "LOCAL_RANK")
"""Where Lightning's own launcher says it: the node, and the process on it."""

SETTLE_S = 0.2
"""How long the threads of collectives get to put down what they hold."""


def backend() -> str | None:
    """What processes talk through, as torch names it: GPUs by NCCL, CPUs by gloo at the same time.

    A number that went through NCCL would be read from the GPU, which first finishes all that was
    launched; several times an update, that costs a large part of what a second GPU brings.

    Returns:
        None: without GPUs there is one choice, and Lightning makes it.
    """
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else None


def is_launched_first() -> bool:
    """Whether this is the process that writes files and talks to the user; known from the start,
    before the processes know one another."""
    for names in (RANK_VARIABLES, RANK_PARTS):
        found = [os.environ[name] for name in names if name in os.environ]
        if found:
            return all(int(value) == 0 for value in found)
    return True


def rank() -> int:
    """This process's number in the process group."""
    return dist.get_rank() if _is_joined() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _is_joined() else 1


def leave() -> None:
    """Ends the process group of a run that ends in order, in all processes; NCCL wants it said.

    A collective of gloo returns before its thread has let go of the tensors, which takes the
    interpreter's lock. A thread that asks for the lock while the interpreter ends aborts the
    process ("terminate called without an active exception"), and such threads live on after the
    group, where DDP or DeepSpeed still hold it. So they get time.
    """
    if _is_joined():
        _thread_group.cache_clear()
        dist.destroy_process_group()
        time.sleep(SETTLE_S)


def barrier() -> None:
    """Waits until all processes are here."""
    if size() > 1:
        dist.barrier()


def total(values: Tensor) -> Tensor:
    """The sum over all processes, elementwise; the same bits on each."""
    if size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values


def stacked(values: Tensor) -> Tensor:
    """The tensors of all processes, [num_processes, ...]; all hand in the same shape."""
    if size() == 1:
        return values[None]
    every = values.new_empty(size() * values.shape[0], *values.shape[1:])
    dist.all_gather_into_tensor(every, values.contiguous())
    return every.view(size(), *values.shape)


def largest(number: int) -> int:
    """The largest of the numbers that the processes hand in."""
    return max(gathered(number))


def gathered(value: Value, *, group: dist.ProcessGroup | None = None) -> list[Value]:
    """Any object of each process, by rank. Small ones: they are pickled.

    They travel between CPUs (see `backend`): nobody waits for what a GPU has still to do.

    Args:
        group: of all processes; None: that of the run.
    """
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value, group=group)
    return values


def gathered_by_thread() -> Callable[[Any], list[Any]]:
    """Return a `gathered` that one thread beside the main one may call at any time.

    Collectives of a process group come in the same order on all ranks, those of two threads do not:
    the thread has a group of its own. The main threads of all ranks call this at the same point.
    """
    if size() == 1:
        return gathered
    assert dist.group.WORLD is not None
    return partial(gathered, group=_thread_group(dist.group.WORLD))


def first_does(action: Callable[[], Value]) -> Value:
    """What `action` gives in the first process, handed to all; the others wait.

    Raises:
        UserError, RuntimeError: on every process, what it raised in the first one.
    """
    if size() == 1:
        return action()
    outcome: list[Any] = [None, None]
    error: Exception | None = None
    if rank() == 0:
        try:
            outcome[0] = action()
        except Exception as raised:  # noqa: BLE001 (whatever it is, the others must not wait on)
            error, outcome[1] = raised, (isinstance(raised, UserError), str(raised))
    dist.broadcast_object_list(outcome)
    if error is not None:
        raise error
    if outcome[1] is not None:
        is_users, message = outcome[1]
        raise SharedError(message) if is_users else RuntimeError(f"In the first process: {message}")
    value: Value = outcome[0]
    return value


@lru_cache(maxsize=1)
def _thread_group(run: dist.ProcessGroup) -> dist.ProcessGroup:
    """Return a second group of all processes, between CPUs, that waits as long as the first."""
    timeout = run._get_backend(torch.device("cpu")).options._timeout
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=timeout)
    return group


def _is_joined() -> bool:
    return bool(dist.is_available() and dist.is_initialized())
