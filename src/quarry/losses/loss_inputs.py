"""Hold what a loss receives: the contrastive batch of this rank, and of all ranks on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from quarry.distributed.gather import RowShares
from quarry.types import TextHashes

ALONE = RowShares(sizes=(0,), rank=0)
"""World size 1: nothing is gathered, so the number of rows does not matter."""


@dataclass(frozen=True, kw_only=True)
class LossInputs:
    """A contrastive batch as embeddings, with all that the data say of it.

    What begins with `all_` is of all ranks, in rank order. It is gathered the first time that it is
    read, a collective operation: all ranks read the same, in the same order, and read nothing
    depending on their own numbers. Gradients go back to the rank of the row.

    Attributes:
        queries: [num_queries, dim], of this rank.
        passages: [num_passages, dim], of this rank, grouped by query: positive, hard negatives.
        positive_index: [num_queries] int64, the row of `passages` that answers each query.
        hashes: of this rank's texts; None if they were not computed.
        scores: [num_passages] float32, a teacher's score of each passage for its query; NaN: the
            data have none. None: there is none in the contrastive batch.
        weights: [num_queries] float32 above 0, how much each query counts; None: all count alike.
        of_queries, of_passages: number of rows on each rank.
    """

    queries: Tensor
    passages: Tensor
    positive_index: Tensor
    hashes: TextHashes | None = None
    scores: Tensor | None = None
    weights: Tensor | None = None
    of_queries: RowShares = ALONE
    of_passages: RowShares = ALONE
    _source: tuple[LossInputs, Callable[[Tensor], Tensor]] | None = None

    @cached_property
    def all_queries(self) -> Tensor:
        """Return the queries of all ranks, [num_all_queries, dim]."""
        if self._source is not None:
            source, function = self._source
            return function(source.all_queries)
        return self.gathered_by_query(self.queries)

    @cached_property
    def all_passages(self) -> Tensor:
        """Return the passages of all ranks, [num_all_passages, dim]."""
        if self._source is not None:
            source, function = self._source
            return function(source.all_passages)
        return self.gathered_by_passage(self.passages)

    @property
    def positive_index_in_all(self) -> Tensor:
        """Return the row of `all_passages` that answers each of this rank's queries."""
        return self.positive_index + self.of_passages.start

    @cached_property
    def all_positive_index(self) -> Tensor:
        """Return the row of `all_passages` that answers each of `all_queries`."""
        if self._source is not None:
            return self._source[0].all_positive_index
        return self.gathered_by_query(self.positive_index_in_all)

    @cached_property
    def all_hashes(self) -> TextHashes | None:
        """Return the hashes of the texts of all ranks."""
        if self._source is not None:
            return self._source[0].all_hashes
        if self.hashes is None:
            return None
        of_passages = torch.stack([self.hashes.passages, self.hashes.answered], dim=1)
        passages, answered = self.gathered_by_passage(of_passages).unbind(dim=1)
        queries = self.gathered_by_query(self.hashes.queries)
        return TextHashes(queries=queries, passages=passages, answered=answered)

    @cached_property
    def groups(self) -> Tensor:
        """Return the query (row of `queries`) of each of this rank's passages: [num_passages]."""
        sizes = torch.diff(self.positive_index, append=self._num_passages)
        return torch.repeat_interleave(sizes)

    @cached_property
    def group_rows(self) -> tuple[Tensor, Tensor]:
        """Return the rows of each query's own passages, its positive first.

        Returns:
            [num_queries, size of the largest group] int64, rows of `passages`, and a bool tensor of
            that shape: False where a group has ended.
        """
        sizes = torch.diff(self.positive_index, append=self._num_passages)
        places = torch.arange(int(sizes.max()), device=sizes.device)
        is_there = places < sizes[:, None]
        return torch.where(is_there, self.positive_index[:, None] + places, 0), is_there

    def group_similarities(self) -> tuple[Tensor, Tensor]:
        """Return the similarity of each query with its own passages, its positive first.

        Returns:
            [num_queries, size of the largest group], fp32 or wider, 0 where a group has ended; and
            a bool tensor of that shape, which is False there.
        """
        wide = torch.promote_types(self.queries.dtype, torch.float32)
        similarities = (self.queries.to(wide)[self.groups] * self.passages.to(wide)).sum(dim=1)
        rows, is_there = self.group_rows
        return similarities[rows].masked_fill(~is_there, 0), is_there

    def group_scores(self, dtype: torch.dtype) -> Tensor:
        """Return a teacher's scores in the layout of `group_similarities`."""
        assert self.scores is not None, "a loss that needs scores gets them"
        rows, is_there = self.group_rows
        return self.scores.to(dtype)[rows].masked_fill(~is_there, 0)

    @property
    def _num_passages(self) -> Tensor:
        return self.positive_index.new_tensor([len(self.passages)])

    @property
    def share(self) -> float | Tensor:
        """Return the part of the contrastive batch that this rank's queries are, by weight."""
        if len(self.of_queries.sizes) == 1:
            return 1.0
        if self.weights is None:
            return len(self.queries) / sum(self.of_queries.sizes)
        weights = self.weights.double()
        return weights.sum() / self.gathered_by_query(weights).sum()

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over this rank's queries, by weight: [num_queries] to a scalar."""
        if self.weights is None:
            return values.mean()
        weights = self.weights.to(values.dtype)
        return (values * weights).sum() / weights.sum()

    def gathered_by_query(self, rows: Tensor) -> Tensor:
        """Return rows of all ranks, of which this rank has one a query."""
        return rows if len(self.of_queries.sizes) == 1 else self.of_queries.gather(rows)

    def gathered_by_passage(self, rows: Tensor) -> Tensor:
        """Return rows of all ranks, of which this rank has one a passage."""
        return rows if len(self.of_passages.sizes) == 1 else self.of_passages.gather(rows)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> LossInputs:
        """Return the same batch with `function` applied to all embeddings.

        Those of other ranks are gathered once and mapped here.

        Args:
            function: [num_texts, dim] to [num_texts, another dim], each row by itself.
        """
        return replace(
            self,
            queries=function(self.queries),
            passages=function(self.passages),
            _source=(self, function),
        )
