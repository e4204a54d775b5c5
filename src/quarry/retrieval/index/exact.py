"""Exact search: every query against every document, in chunks, with a running top k."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quarry.retrieval.ranking import tie_order
from quarry.types import Run


class ExactIndex:
    """Inner-product search over embeddings, exact and with one fixed order.

    Equal scores rank by document id, descending, as trec_eval does. Scores are fp32 from fp32
    products: in bf16 distinct scores would tie.

    Args:
        num_documents_per_chunk: documents compared at a time; bounds memory, not the result.
    """

    def __init__(self, *, num_documents_per_chunk: int = 65_536) -> None:
        self.num_documents_per_chunk = num_documents_per_chunk

    def search(
        self,
        *,
        query_ids: Sequence[str],
        queries: Tensor,
        document_ids: Sequence[str],
        documents: Tensor,
        top_k: int,
    ) -> Run:
        """The `top_k` best documents of each query.

        Args:
            queries: [num_queries, dim] fp32.
            documents: [num_documents, dim] fp32.
        """
        priority = tie_order(document_ids)
        best_scores, best_rows = self._top_rows(
            queries, documents, torch.from_numpy(priority), top_k
        )
        rows = best_rows.tolist()
        scores = best_scores.tolist()
        return {
            query_id: {document_ids[row]: score for row, score in zip(*ranked, strict=True)}
            for query_id, *ranked in zip(query_ids, rows, scores, strict=True)
        }

    def _top_rows(
        self, queries: Tensor, documents: Tensor, priority: Tensor, top_k: int
    ) -> tuple[Tensor, Tensor]:
        kept_scores = queries.new_empty(len(queries), 0)
        kept_rows = torch.empty(len(queries), 0, dtype=torch.long)
        for start in range(0, len(documents), self.num_documents_per_chunk):
            chunk = documents[start : start + self.num_documents_per_chunk]
            with torch.autocast(device_type=queries.device.type, enabled=False):
                products = queries @ chunk.T
            scores = torch.cat([kept_scores, products], dim=1)
            new_rows = torch.arange(start, start + len(chunk)).expand(len(queries), -1)
            rows = torch.cat([kept_rows, new_rows], dim=1)
            kept_scores, columns = top_k_with_ties(scores, priority[rows], top_k)
            kept_rows = rows.gather(1, columns)
        return kept_scores, kept_rows


def top_k_with_ties(scores: Tensor, priority: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns of each row by (score descending, priority ascending), in that order.

    Args:
        scores, priority: [num_rows, num_columns].

    Returns:
        Scores and column numbers, both [num_rows, min(k, num_columns)].
    """
    k = min(k, scores.shape[1])
    values, columns = scores.topk(k, dim=1)
    # topk picks freely among equals at the border; those rows (few, in fp32) are sorted in full
    num_at_border = (scores >= values[:, -1:]).sum(dim=1)
    for row in (num_at_border > k).nonzero().flatten().tolist():
        candidates = (scores[row] >= values[row, -1]).nonzero().flatten()
        columns[row] = candidates[_order(scores[row, candidates], priority[row, candidates])[:k]]
    order = _order(scores.gather(1, columns), priority.gather(1, columns))
    columns = columns.gather(1, order)
    return scores.gather(1, columns), columns


def _order(scores: Tensor, priority: Tensor) -> Tensor:
    """Order by (score descending, priority ascending) along the last dimension."""
    by_priority = priority.argsort(dim=-1, stable=True)
    by_score = scores.gather(-1, by_priority).argsort(dim=-1, descending=True, stable=True)
    return by_priority.gather(-1, by_score)
