"""Compute the reciprocal rank with a cutoff k, which pytrec_eval's `recip_rank.10` ignores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quarry.metrics.ranking import rank_documents
from quarry.types import Qrels, Run


def reciprocal_rank(
    *, qrels: Qrels, run: Run, k: int | None = None, relevance_level: int = 1
) -> dict[str, float]:
    """Return each judged query's reciprocal rank; the mean over queries is MRR@k.

    Voorhees, "The TREC-8 Question Answering Track Report" (1999). The run is cut to its first k
    documents in the order of `quarry.metrics.ranking.rank_documents`, so tie-breaking at the cutoff
    is trec_eval's.

    Args:
        qrels: judgements; each query in them gets a value.
        run: rankings; queries that are not in `qrels` are ignored.
        k: how many documents of each ranking count, at least 1; None for all of them.
        relevance_level: the lowest grade that counts as relevant, at least 1.

    Returns:
        Query id -> 1 / rank of the first relevant document, 0 without one in the first k.

    Raises:
        UserError: a score is NaN.
    """
    assert k is None or k >= 1, k
    assert relevance_level >= 1, relevance_level
    return {
        query_id: _inverse_of_first_hit(
            rank_documents(run.get(query_id, {}))[:k], grades, relevance_level
        )
        for query_id, grades in qrels.items()
    }


def _inverse_of_first_hit(
    ranking: Sequence[str], grades: Mapping[str, int], relevance_level: int
) -> float:
    for position, document_id in enumerate(ranking, start=1):
        if grades.get(document_id, 0) >= relevance_level:
            return 1.0 / position
    return 0.0
