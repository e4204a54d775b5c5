"""Read Lightning's settings of devices and precision, without importing Lightning."""

from __future__ import annotations

from collections.abc import Sequence

import torch

BF16_WEIGHTS = "bf16-true"
BF16_AUTOCAST = "bf16-mixed"


def num_ranks_of(devices: int | str | Sequence[int]) -> int | None:
    """Return how many ranks per node Lightning's `devices` stands for.

    A number or a list of GPUs counts itself; "auto" and -1 mean all GPUs. None: any other value.
    """
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return len(devices)
    if devices in ("auto", -1, "-1"):
        return max(1, int(torch.cuda.device_count()))
    return int(devices) if str(devices).isdigit() else None
