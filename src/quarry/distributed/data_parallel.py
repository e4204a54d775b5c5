"""Configure Lightning's DDP strategy: the full model on every rank, gradients averaged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from pytorch_lightning.strategies import DDPStrategy

from quarry.distributed import world
from quarry.distributed.settings import num_ranks_of

TIMEOUT_S = 7200


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
