"""The whole model in every process, gradients averaged: Lightning's DDP, with what fits us set."""

from __future__ import annotations

from datetime import timedelta

from pytorch_lightning.strategies import DDPStrategy

from quarry.distributed import world

TIMEOUT_S = 7200


def suggested_strategy(*, devices: int | str, num_nodes: int) -> DDPStrategy | str:
    """DDP where several devices are asked for by number, else what Lightning takes."""
    is_several = num_nodes > 1 or (str(devices).isdigit() and int(devices) > 1)
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
