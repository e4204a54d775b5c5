"""The whole model in every process, gradients averaged: Lightning's DDP, with what fits us set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
from pytorch_lightning.strategies import DDPStrategy

from quarry.distributed import world

TIMEOUT_S = 7200


def num_processes_of(devices: int | str | Sequence[int]) -> int | None:
    """How many processes on a node Lightning's `devices` are: a number, a list of GPUs, or, as
    "auto" and -1, all GPUs; None: nothing of that."""
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return len(devices)
    if devices in ("auto", -1, "-1"):
        return max(1, int(torch.cuda.device_count()))
    return int(devices) if str(devices).isdigit() else None


def suggested_strategy(*, devices: int | str | Sequence[int], num_nodes: int) -> DDPStrategy | str:
    """DDP where there are several devices, else what Lightning takes."""
    is_several = num_nodes > 1 or (num_processes_of(devices) or 1) > 1
    return data_parallel_strategy(timeout_s=TIMEOUT_S) if is_several else "auto"


def data_parallel_strategy(*, timeout_s: float) -> DDPStrategy:
    """DDP. The buffers of a transformer never change, so they are not sent around each time.

    Args:
        timeout_s: how long a process waits for another: longer than a search of rank 0.
    """
    return DDPStrategy(
        process_group_backend=world.backend(),
        timeout=timedelta(seconds=timeout_s),
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )
