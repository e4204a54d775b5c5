"""Configure Lightning's DDP strategy: the full model on every rank, gradients averaged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import torch
from pytorch_lightning.strategies import DDPStrategy

from quarry.distributed import world

TIMEOUT_S = 7200


def num_ranks_of(devices: int | str | Sequence[int]) -> int | None:
    """Return how many ranks per node Lightning's `devices` stands for.

    A number or a list of GPUs counts itself; "auto" and -1 mean all GPUs. None: any other value.
    """
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return len(devices)
    if devices in ("auto", -1, "-1"):
        return max(1, int(torch.cuda.device_count()))
    return int(devices) if str(devices).isdigit() else None


def suggested_strategy(*, devices: int | str | Sequence[int], num_nodes: int) -> DDPStrategy | str:
    """Return DDP if there are several devices, else Lightning's "auto"."""
    is_several = num_nodes > 1 or (num_ranks_of(devices) or 1) > 1
    return data_parallel_strategy(timeout_s=TIMEOUT_S) if is_several else "auto"


def data_parallel_strategy(*, timeout_s: float) -> DDPStrategy:
    """Return a DDP strategy that does not broadcast buffers: a transformer's never change.

    Args:
        timeout_s: how long a rank waits for another; must exceed a search on rank 0.
    """
    return DDPStrategy(
        process_group_backend=world.backend(),
        timeout=timedelta(seconds=timeout_s),
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )
