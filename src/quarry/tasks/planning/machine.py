"""The machine that a plan is made for: this one, or one whose GPUs are stated."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from quarry.errors import UserError

CLOSE = 0.92
"""Share of the memory from which on a run may yet fail: the estimate errs, CUDA and NCCL take some
hundred MiB that it does not count, and allocating leaves gaps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a run would have.

    Attributes:
        name: of the device, for people.
        num_bytes: of memory for one process: a GPU's, or its share of the host's.
        is_gpu: it computes on GPUs.
        disk_bytes: free where run directories go; None: not known.
    """

    name: str
    num_bytes: int
    is_gpu: bool
    disk_bytes: int | None


def planned_machine(
    *,
    gpu_memory_gib: float | None,
    disk_gib: float | None,
    accelerator: str,
    num_devices: int,
    runs_dir: str,
) -> Machine:
    """The machine that is stated, or else this one.

    Args:
        gpu_memory_gib: of each GPU; None: as here, and without a GPU here: the CPU.
        disk_gib: free where run directories go; None: as here, of a machine that is stated unknown.
        accelerator, num_devices: of the trainer; the latter on one node.
        runs_dir: where run directories go.

    Raises:
        UserError: a size that is none; GPUs are stated for a run on the CPU.
    """
    for key, value in (("gpu_memory_gib", gpu_memory_gib), ("disk_gib", disk_gib)):
        if value is not None and not value > 0:
            raise UserError(f"task.{key}={value} must be above 0 (GiB), or null: as it is here.")
    if gpu_memory_gib is not None and accelerator == "cpu":
        raise UserError(
            f"task.gpu_memory_gib={gpu_memory_gib} has no effect with trainer.accelerator=cpu: "
            "leave out one of them."
        )
    disk = None if disk_gib is None else int(disk_gib * 2**30)
    if gpu_memory_gib is not None:
        name = f"GPUs of {gpu_memory_gib:g} GiB, as stated"
        return Machine(
            name=name, num_bytes=int(gpu_memory_gib * 2**30), is_gpu=True, disk_bytes=disk
        )
    disk = free_bytes(Path(runs_dir)) if disk is None else disk
    if torch.cuda.is_available() and accelerator != "cpu":
        properties = torch.cuda.get_device_properties(0)
        return Machine(
            name=properties.name,
            num_bytes=properties.total_memory,
            is_gpu=True,
            disk_bytes=disk,
        )
    return Machine(
        name="this machine's CPU",
        num_bytes=psutil.virtual_memory().available // num_devices,
        is_gpu=False,
        disk_bytes=disk,
    )


def free_bytes(folder: Path) -> int:
    """Free space where `folder` is, or would be."""
    folder = folder.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
