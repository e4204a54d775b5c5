"""Score a run under the rules of one set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quarry.evaluation.convention import Rules
from quarry.metrics.ranking import rank_documents
from quarry.metrics.trec import evaluate_run
from quarry.types import Qrels, Run

PLAIN_RECALL = "Recall@"
CAPPED_RECALL = "Recall_cap@"

_ROUNDING = 1e-6  # sums of gains in double precision exceed 1 by far less


def cut_run(run: Run, rules: Rules, *, top_k: int) -> Run:
    """Return the first `top_k` results of each query, after removing self matches by the rules."""
    return {query_id: _cut(query_id, scores, rules, top_k) for query_id, scores in run.items()}


def score_run(
    run: Run, qrels: Qrels, rules: Rules, *, measures: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return measure -> query id -> value, under the names in `measures` even if recall is capped.

    Raises:
        UserError: as `evaluate_run`.
    """
    counted = {name: _capped(name) if rules.caps_recall else name for name in measures}
    values = evaluate_run(
        qrels=qrels,
        run=run,
        measures=list(counted.values()),
        relevance_level=rules.relevance_level,
        ties=rules.ties,
        missing_queries=rules.missing_queries,
    )
    return {name: values[measure] for name, measure in counted.items()}


def check_range(per_query: Mapping[str, Mapping[str, float]], *, set_name: str) -> None:
    """Check that all values are in 0 to 1, as those of every measure must be.

    Raises:
        RuntimeError: a value is not; the message names set, measure, query and value.
    """
    for measure, values in per_query.items():
        for query_id, value in values.items():
            if not -_ROUNDING <= value <= 1 + _ROUNDING:
                raise RuntimeError(
                    f"{set_name}: {measure} of query {query_id!r} is {value}, outside 0 to 1. This "
                    "is a mistake in quarry or in trec_eval; please report it with the judgements"
                )


def _capped(measure: str) -> str:
    if measure.startswith(PLAIN_RECALL):
        return CAPPED_RECALL + measure.removeprefix(PLAIN_RECALL)
    return measure


def _cut(query_id: str, scores: dict[str, float], rules: Rules, top_k: int) -> dict[str, float]:
    is_removed = rules.removes_self_match and query_id in scores
    if not is_removed and len(scores) <= top_k:
        return scores
    ranking = rank_documents(scores, ties=rules.ties)
    kept = [document_id for document_id in ranking if not (is_removed and document_id == query_id)]
    return {document_id: scores[document_id] for document_id in kept[:top_k]}
