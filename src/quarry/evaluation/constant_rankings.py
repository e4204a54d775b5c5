"""Tell rankings that say nothing: equal scores everywhere, or one ranking for all queries."""

from __future__ import annotations

from quarry.types import Run

MIN_QUERIES = 10
"""Number of queries that do not have one ranking by chance."""

MIN_DOCUMENTS = 2


def constant_ranking(run: Run) -> str | None:
    """Return what is constant in the rankings of a set, None if nothing is.

    Args:
        run: rankings; queries with fewer than two documents say nothing.
    """
    rankings = [scores for scores in run.values() if len(scores) >= MIN_DOCUMENTS]
    if not rankings:
        return None
    values = {score for scores in rankings for score in scores.values()}
    if values == {0.0}:
        return "all scores are 0, as those of embeddings that are all zero: ranks are those of ids"
    if all(len(set(scores.values())) == 1 for scores in rankings):
        return "all documents of a query have the same score: ranks are those of ids"
    if len(rankings) >= MIN_QUERIES and len({tuple(scores) for scores in rankings}) == 1:
        return f"all {len(rankings)} queries have the same ranking"
    return None
