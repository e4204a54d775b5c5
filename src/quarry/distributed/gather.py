"""Rows of all processes in one tensor, with their gradients: passages become negatives for all."""

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
    """How many rows each process has.

    Attributes:
        sizes: by rank; they may differ, and each is 1 or more.
        rank: of this process.
    """

    sizes: tuple[int, ...]
    rank: int

    @property
    def start(self) -> int:
        """Where this process's rows begin among the rows of all."""
        return sum(self.sizes[: self.rank])

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, by rank.

        The gradient of a row is the sum of what all processes did with it. Every process calls
        this, and every process runs the backward pass.

        Args:
            rows: [sizes[rank], ...], of any dtype; the other dimensions are equal everywhere.

        Returns:
            [sum(sizes), ...].
        """
        assert len(rows) == self.sizes[self.rank], "as many rows as were announced"
        if len(self.sizes) == 1:
            return rows
        every: Tensor = _Gather.apply(rows, self)
        return every


def exchanged_shares(*num_rows: int) -> tuple[RowShares, ...]:
    """For each number of rows that this process has: what the others have of the same."""
    counts = world.gathered(num_rows)
    return tuple(RowShares(sizes=sizes, rank=world.rank()) for sizes in zip(*counts, strict=True))


class _Gather(torch.autograd.Function):
    """Shares are filled up to the largest: collectives want equal sizes."""

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
