"""Compute capped recall, which BEIR reports for TREC-COVID."""

from __future__ import annotations

from quarry.metrics.ranking import rank_documents
from quarry.types import Qrels, Run


def capped_recall(*, qrels: Qrels, run: Run, k: int, relevance_level: int = 1) -> dict[str, float]:
    """Return each judged query's capped recall: relevant among the first k / min(k, relevant).

    Plain recall cannot reach 1 for a query with more than k relevant documents; capped recall can.
    It is R_cap@k of Thakur et al., "BEIR" (2021), arXiv 2104.08663.

    Args:
        qrels: judgements; each query in them gets a value.
        run: rankings, ordered by `quarry.metrics.ranking.rank_documents`; queries that are not in
            `qrels` are ignored.
        k: how many documents of each ranking count, at least 1.
        relevance_level: the lowest grade that counts as relevant, at least 1.

    Returns:
        Query id -> value in 0..1, 0 for a query without relevant documents.

    Raises:
        UserError: a score is NaN.
    """
    assert k >= 1, k
    assert relevance_level >= 1, relevance_level
    values = {}
    for query_id, grades in qrels.items():
        relevant = {document for document, grade in grades.items() if grade >= relevance_level}
        num_found = len(relevant.intersection(rank_documents(run.get(query_id, {}))[:k]))
        values[query_id] = num_found / min(k, len(relevant)) if relevant else 0.0
    return values
