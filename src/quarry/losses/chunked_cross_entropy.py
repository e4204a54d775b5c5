"""Compute the cross entropy of query-passage similarities without holding all of them in memory.

Similarities are computed in chunks of rows, and again in the backward pass. Memory is that of
the embeddings and one chunk, however large the contrastive batch is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_SIMILARITIES = 2**26
"""Similarities in memory at a time; 256 MiB in fp32."""

Excluded = Callable[[slice], Tensor]
"""Rows -> bool [num_rows, num_passages], True where a passage is not a negative of the query."""


def chunked_cross_entropy(
    queries: Tensor,
    passages: Tensor,
    positive_index: Tensor,
    *,
    temperature: float,
    excluded: Excluded | None = None,
    hardness: float = 0.0,
    max_similarities: int = MAX_SIMILARITIES,
) -> tuple[Tensor, Tensor]:
    """Return each query's negative log-probability of its positive among the passages.

    Similarities are computed in the embeddings' own precision, whatever autocast or TF32 setting
    is active.

    Args:
        queries: [num_queries, dim], fp32 or fp64.
        passages: [num_passages, dim], of the same dtype.
        positive_index: [num_queries], the row of `passages` that answers each query.
        temperature: divides the similarities.
        excluded: tells which passages are left out of the loss; a query's positive never is.
        hardness: a negative counts exp(hardness * its similarity) times; the factor carries no
            gradient.
        max_similarities: entries in one chunk; a chunk has at least one row.

    Returns:
        Losses [num_queries], and [num_queries] bool: the positive is the most similar passage
        (the first of them where several are equal). The second carries no gradient.
    """
    assert queries.dtype == passages.dtype
    assert queries.dtype in (torch.float32, torch.float64), "similarities need fp32 or wider"
    num_rows = max(1, max_similarities // len(passages))
    starts = range(0, len(queries), num_rows)
    chunks = _Chunks(
        rows=[slice(start, min(start + num_rows, len(queries))) for start in starts],
        temperature=temperature,
        excluded=excluded,
        hardness=hardness,
    )
    losses, is_first = _CrossEntropy.apply(queries, passages, positive_index, chunks)
    return losses, is_first


def similarity_bytes(num_queries: int, num_passages: int) -> int:
    """Return the bytes of the similarities that are in memory at a time, in fp32."""
    num_rows = max(1, MAX_SIMILARITIES // num_passages)
    return 4 * min(num_queries, num_rows) * num_passages


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chunks:
    """The rows of each chunk, and the computation of their logits."""

    rows: list[slice]
    temperature: float
    excluded: Excluded | None
    hardness: float

    def logits(self, rows: slice, queries: Tensor, passages: Tensor, index: Tensor) -> Tensor:
        """Return logits [num_rows, num_passages], minus infinity for excluded passages."""
        logits = queries[rows] @ passages.T
        logits /= self.temperature
        if self.hardness:
            positives = logits.gather(1, index[rows, None])
            logits *= 1 + self.hardness * self.temperature
            logits.scatter_(1, index[rows, None], positives)
        if self.excluded is not None:
            is_excluded = self.excluded(rows).scatter(1, index[rows, None], False)
            logits.masked_fill_(is_excluded, -torch.inf)
        return logits


class _CrossEntropy(torch.autograd.Function):
    """Chunked cross entropy that recomputes its logits in the backward pass.

    It saves the two parts of each row's log-sum-exp separately, the largest logit and the log of
    the rest: their sum would round away a small loss beside a large logit.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, passages: Tensor, positive_index: Tensor, chunks: _Chunks
    ) -> tuple[Tensor, Tensor]:
        largest, log_sum, positive = (queries.new_empty(len(queries)) for _ in range(3))
        is_first = torch.empty_like(positive_index, dtype=torch.bool)
        with _own_precision(queries.device):
            for rows in chunks.rows:
                index = positive_index[rows]
                logits = chunks.logits(rows, queries, passages, positive_index)
                largest[rows], best = logits.max(dim=1)
                is_first[rows] = best == index
                logits -= largest[rows, None]
                positive[rows] = logits.gather(1, index[:, None]).squeeze(1)
                log_sum[rows] = logits.exp_().sum(dim=1).log()
        ctx.save_for_backward(queries, passages, positive_index, largest, log_sum)
        ctx.chunks = chunks
        ctx.mark_non_differentiable(is_first)
        return log_sum - positive, is_first

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor | None, ...]:
        queries, passages, positive_index, largest, log_sum = ctx.saved_tensors
        of_queries, of_passages = torch.empty_like(queries), torch.zeros_like(passages)
        with _own_precision(queries.device):
            for rows in ctx.chunks.rows:
                index = positive_index[rows]
                logits = ctx.chunks.logits(rows, queries, passages, positive_index)
                # softmax minus one-hot, in place
                logits -= largest[rows, None]
                logits -= log_sum[rows, None]
                logits.exp_()
                logits.scatter_add_(1, index[:, None], -logits.new_ones(len(index), 1))
                logits *= gradient[rows, None] / ctx.chunks.temperature
                of_queries[rows] = logits @ passages
                of_passages.addmm_(logits.T, queries[rows])
        return of_queries, of_passages, None, None


@contextmanager
def _own_precision(device: torch.device) -> Iterator[None]:
    """Compute products in the precision of their factors, without autocast and TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type=device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
