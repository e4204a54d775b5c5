"""Gather rows of all ranks with their gradients, so that passages are negatives on every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from quarry.distributed import world


@dataclass(frozen=True, kw_only=True, slots=True)
class RowShares:
    """Number of rows on each rank.

    Attributes:
        sizes: by rank; they may differ, and each is 1 or more.
        rank: this rank.
    """

    sizes: tuple[int, ...]
    rank: int

    @property
    def start(self) -> int:
        """Index of this rank's first row among the rows of all ranks."""
        return sum(self.sizes[: self.rank])

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks, in rank order.

        The gradient of a row is the sum of its gradients on all ranks. Every rank must call this
        and run the backward pass.

        Args:
            rows: [sizes[rank], ...], of any dtype; all dimensions but the first are equal on all
                ranks.

        Returns:
            [sum(sizes), ...].
        """
        assert len(rows) == self.sizes[self.rank], "as many rows as were announced"
        if len(self.sizes) == 1:
            return rows
        every: Tensor = _Gather.apply(rows, self)
        return every


def exchanged_shares(*num_rows: int) -> tuple[RowShares, ...]:
    """Exchange row counts among the ranks: one `RowShares` for each count of this rank."""
    counts = world.gathered(num_rows)
    return tuple(RowShares(sizes=sizes, rank=world.rank()) for sizes in zip(*counts, strict=True))


class _Gather(torch.autograd.Function):
    """All-gather whose backward is a reduce-scatter.

    Rows are padded to the largest share, because the collectives need equal sizes.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shares: RowShares) -> Tensor:
        ctx.shares = shares
        largest = max(shares.sizes)
        own = rows.new_zeros(largest, *rows.shape[1:])
        own[: len(rows)] = rows
        every = rows.new_empty(len(shares.sizes) * largest, *rows.shape[1:])
        dist.all_gather_into_tensor(every, own)
        parts = every.view(len(shares.sizes), largest, *rows.shape[1:])
        return torch.cat([part[:size] for part, size in zip(parts, shares.sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        shares: RowShares = ctx.shares
        largest = max(shares.sizes)
        every = gradient.new_zeros(len(shares.sizes), largest, *gradient.shape[1:])
        for part, rows in zip(every, gradient.split(shares.sizes), strict=True):
            part[: len(rows)] = rows
        own = gradient.new_empty(largest, *gradient.shape[1:])
        dist.reduce_scatter_tensor(own, every.flatten(0, 1))
        return own[: shares.sizes[shares.rank]], None
