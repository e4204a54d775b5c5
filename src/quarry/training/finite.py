"""Check that weights and optimizer states are finite numbers, in one reduction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from quarry.distributed import world


def are_finite(module: nn.Module, optimizers: Sequence[Optimizer]) -> bool:
    """Return whether the trained weights and the optimizers' states are finite on all ranks.

    A collective operation. Each rank looks at its own shard. On a GPU one number is read, which
    waits for the work launched so far.
    """
    tensors = [
        getattr(each, "ds_tensor", each).detach()  # its shard under ZeRO 3
        for each in module.parameters()
        if each.requires_grad
    ]
    for optimizer in optimizers:
        tensors += _states(optimizer)
    # the largest absolute value: the sum of squares of large weights would overflow
    norm = torch.nn.utils.get_total_norm([each for each in tensors if each.numel()], math.inf)
    return world.largest(int(not math.isfinite(norm.item()))) == 0


def _states(optimizer: Optimizer) -> Iterator[Tensor]:
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner  # DeepSpeed and Lightning wrap it
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor) and value.is_floating_point():
                yield value.detach()
