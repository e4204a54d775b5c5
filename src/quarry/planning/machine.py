"""Describe the machine that a plan is made for: this one, or one whose GPUs are stated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from quarry.errors import UserError
from quarry.models.memory import free_device_bytes
from quarry.planning.cards import Card, card_of, named_card
from quarry.runtime.disk_errors import free_bytes

CLOSE = 0.92
"""Share of the memory above which a run may fail: the estimate errs, CUDA and NCCL take some
hundred MiB that it does not count, and the allocator fragments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Describe what a run would have.

    Attributes:
        name: of the device, for people.
        num_bytes: of memory for one rank: of a GPU that is stated, of this machine's fullest GPU
            what is free, or a share of the host's.
        is_gpu: it computes on GPUs.
        disk_bytes: free where the plan's files go; None: not known.
        card: its GPUs; None: not in the table, not stated, or none.
        host_bytes: of memory that is available on this machine; None: the plan is for another one.
    """

    name: str
    num_bytes: int
    is_gpu: bool
    disk_bytes: int | None
    card: Card | None = None
    host_bytes: int | None = None


def planned_machine(
    *,
    gpu_memory_gib: float | None,
    disk_gib: float | None,
    card: str | None,
    accelerator: str,
    num_devices: int,
    folder: str,
) -> Machine:
    """Return the machine that is stated, or else this one.

    Args:
        gpu_memory_gib: of each GPU; None: the card's, or as here, and without a GPU here: the CPU.
        disk_gib: free where files go; None: as here, of a machine that is stated unknown.
        card: name of its GPUs in the table of cards; None: as here, of one that is stated unknown.
        accelerator, num_devices: of the trainer; the latter on one node.
        folder: where files go.

    Raises:
        UserError: a size that is none, an unknown card; GPUs are stated for a run on the CPU.
    """
    _check_stated(gpu_memory_gib, disk_gib=disk_gib, card=card, on_cpu=accelerator == "cpu")
    disk = None if disk_gib is None else int(disk_gib * 2**30)
    if gpu_memory_gib is not None or card is not None:
        return _stated(gpu_memory_gib, None if card is None else named_card(card), disk)
    disk = free_bytes(Path(folder)) if disk is None else disk
    available = psutil.virtual_memory().available
    if torch.cuda.is_available() and accelerator != "cpu":
        properties = torch.cuda.get_device_properties(0)
        number = min(num_devices, torch.cuda.device_count())
        return Machine(
            name=properties.name,
            num_bytes=min(free_device_bytes(torch.device("cuda", i)) for i in range(number)),
            is_gpu=True,
            disk_bytes=disk,
            card=card_of(properties.name),
            host_bytes=available,
        )
    return Machine(
        name="this machine's CPU",
        num_bytes=available // num_devices,
        is_gpu=False,
        disk_bytes=disk,
        host_bytes=available,
    )


def _check_stated(
    gpu_memory_gib: float | None, *, disk_gib: float | None, card: str | None, on_cpu: bool
) -> None:
    for key, value in (("gpu_memory_gib", gpu_memory_gib), ("disk_gib", disk_gib)):
        if value is not None and not value > 0:
            raise UserError(f"task.{key}={value} must be above 0 (GiB), or null: as it is here.")
    for key, given in (("gpu_memory_gib", gpu_memory_gib), ("card", card)):
        if given is not None and on_cpu:
            raise UserError(
                f"task.{key}={given} has no effect with trainer.accelerator=cpu: leave out one of "
                "them."
            )


def _stated(gpu_memory_gib: float | None, card: Card | None, disk: int | None) -> Machine:
    memory = gpu_memory_gib
    if memory is None:
        assert card is not None
        memory = card.memory_gib
    what = "GPUs" if card is None else f"{card.name} GPUs"
    return Machine(
        name=f"{what} of {memory:g} GiB, as stated",
        num_bytes=int(memory * 2**30),
        is_gpu=True,
        disk_bytes=disk,
        card=card,
    )
