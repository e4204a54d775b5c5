"""Score a run against qrels with trec_eval's measures (by pytrec_eval), query by query.

pytrec_eval computes the measures. Quarry decides which queries have a value, and breaks ties.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from quarry.errors import UserError
from quarry.metrics.mrr import reciprocal_rank
from quarry.metrics.ranking import Ties, rank_documents
from quarry.metrics.recall import capped_recall
from quarry.types import MAX_GRADE, Qrels, Run

logger = logging.getLogger(__name__)

MissingQueries = Literal["zero", "left_out"]
"""Whether a judged query without results counts as 0 (trec_eval's option -c) or not at all."""

_RECIPROCAL_RANK = "recip_rank"
_CAPPED_RECALL = "recall_cap"
_OWN = (_RECIPROCAL_RANK, _CAPPED_RECALL)  # pytrec_eval lacks these, or computes them differently
_FULL_RANKING = {"nDCG": "ndcg", "MAP": "map", "MRR": _RECIPROCAL_RANK}
_FIRST_K = {
    "nDCG": "ndcg_cut",
    "Recall": "recall",
    "Recall_cap": _CAPPED_RECALL,
    "MRR": _RECIPROCAL_RANK,
    "MAP": "map_cut",
    "P": "P",
    "Success": "success",
}
_FORMS = ", ".join([*(f"{family}@k" for family in _FIRST_K), *_FULL_RANKING])


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A parsed measure name: trec_eval's measure and a cutoff.

    Attributes:
        trec_name: the measure in trec_eval, without a cutoff ("ndcg_cut").
        k: how many documents of a ranking count; None for all of them.
    """

    trec_name: str
    k: int | None = None

    @property
    def request(self) -> str:
        """Name by which pytrec_eval is asked for the measure."""
        return self.trec_name if self.k is None else f"{self.trec_name}.{self.k}"

    @property
    def key(self) -> str:
        """Name of the measure in pytrec_eval's results."""
        return self.trec_name if self.k is None else f"{self.trec_name}_{self.k}"


def parse_measure(name: str) -> Measure:
    """Parse a measure name, such as "nDCG@10" or "MAP".

    Raises:
        UserError: there is no such measure; the message lists the forms.
    """
    family, at, cutoff = name.partition("@")
    if not at and family in _FULL_RANKING:
        return Measure(trec_name=_FULL_RANKING[family])
    if family in _FIRST_K and re.fullmatch("[1-9][0-9]*", cutoff):
        return Measure(trec_name=_FIRST_K[family], k=int(cutoff))
    raise UserError(
        f"measure {name!r}: there is no such measure; write one of {_FORMS} in this spelling, "
        "with a positive whole number for k, as in nDCG@10"
    )


def evaluate_run(
    *,
    qrels: Qrels,
    run: Run,
    measures: Sequence[str],
    relevance_level: int = 1,
    ties: Ties = "descending",
    missing_queries: MissingQueries = "zero",
) -> dict[str, dict[str, float]]:
    """Return every judged query's value for each measure.

    A query is judged if it is a key of `qrels`. Its value is 0 if no document is relevant to it.
    Queries of the run without judgements are ignored, with one warning in the log. Unjudged
    documents are not relevant.

    nDCG uses the positive grades as linear gains over log2(rank + 1), whatever the relevance level
    (Järvelin and Kekäläinen, 2002). P@k divides by k. Recall@k, MAP and MAP@k divide by the number
    of relevant documents, however few are retrieved; Recall_cap@k divides by the smaller of the
    two.

    Args:
        qrels: judgements: query id -> document id -> grade.
        run: rankings: query id -> document id -> score; scores may be numpy or torch scalars.
        measures: measure names ("nDCG@10"); see `parse_measure`.
        relevance_level: the lowest grade that counts as relevant, at least 1, for all but nDCG.
        ties: order of documents with equal scores.
        missing_queries: judged queries without results in the run: "zero" (trec_eval's option -c)
            gives them 0, "left_out" gives them no value, unless no query would remain.

    Returns:
        Measure name -> query id -> value in 0..1, queries in the order of `qrels`.

    Raises:
        UserError: an unknown measure, no judgements, a grade beyond `MAX_GRADE`, a relevance level
            below 1, a NaN score.
    """
    parsed = {name: parse_measure(name) for name in measures}
    if not qrels:
        raise UserError("qrels: no query is judged, so there is nothing to score; check the file")
    _check_grades(qrels)
    if relevance_level < 1:
        raise UserError(
            f"relevance_level={relevance_level}: grades of 0 and below mean not relevant; "
            "give a level of at least 1"
        )
    if num_unjudged := len(run.keys() - qrels.keys()):
        logger.warning("ignored %d of %d queries: they have no judgements", num_unjudged, len(run))
    if missing_queries == "left_out":
        qrels = _answered(qrels, run)
    ordered = _replace_scores_by_order(run, query_ids=qrels, ties=ties)
    counted = _count(
        qrels=qrels, run=ordered, measures=parsed.values(), relevance_level=relevance_level
    )
    scores = {}
    for name, measure in parsed.items():
        if measure.trec_name in _OWN:
            scores[name] = _count_own(measure, qrels, ordered, relevance_level)
        else:
            scores[name] = {
                query_id: counted[query_id][measure.key] if query_id in counted else 0.0
                for query_id in qrels
            }
    return scores


def mean_scores(per_query: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Average the result of `evaluate_run`: measure -> unweighted mean over the queries."""
    return {measure: fmean(values.values()) for measure, values in per_query.items()}


def _check_grades(qrels: Qrels) -> None:
    """Raise on grades that make trec_eval crash or miscount."""
    for query_id, grades in qrels.items():
        for document_id, grade in grades.items():
            if abs(grade) > MAX_GRADE:
                raise UserError(
                    f"qrels: query {query_id!r} and document {document_id!r} have the grade "
                    f"{grade} (-{MAX_GRADE} to {MAX_GRADE}); correct the judgement"
                )


def _answered(qrels: Qrels, run: Run) -> Qrels:
    """Return the judgements of the queries for which the run has results.

    For a run without any results return all: trec_eval's mean over no queries is 0, too.
    """
    answered = {query_id: grades for query_id, grades in qrels.items() if run.get(query_id)}
    if not answered:
        logger.warning("the run holds nothing for any judged query: every measure is 0")
    return answered or qrels


def _count_own(measure: Measure, qrels: Qrels, run: Run, relevance_level: int) -> dict[str, float]:
    if measure.trec_name == _RECIPROCAL_RANK:
        return reciprocal_rank(qrels=qrels, run=run, k=measure.k, relevance_level=relevance_level)
    assert measure.k is not None, measure
    return capped_recall(qrels=qrels, run=run, k=measure.k, relevance_level=relevance_level)


def _replace_scores_by_order(run: Run, *, query_ids: Iterable[str], ties: Ties) -> Run:
    """Rank the given queries, and replace each document's score by minus its position.

    pytrec_eval compares scores in single precision, which turns close scores into ties. Integers
    stay distinct, so its order is ours.
    """
    return {
        query_id: {
            document_id: -float(position)
            for position, document_id in enumerate(rank_documents(run.get(query_id, {}), ties=ties))
        }
        for query_id in query_ids
    }


def _count(
    *, qrels: Qrels, run: Run, measures: Iterable[Measure], relevance_level: int
) -> dict[str, dict[str, float]]:
    """Run pytrec_eval: query id -> its name of a measure -> value.

    Queries without results are left out: pytrec_eval (0.5.11) can crash on empty results.
    """
    import pytrec_eval

    judged = {query_id: dict(grades) for query_id, grades in qrels.items() if run[query_id]}
    requests = {measure.request for measure in measures if measure.trec_name not in _OWN}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, requests, relevance_level=relevance_level)
    counted: dict[str, dict[str, float]] = evaluator.evaluate(
        {query_id: run[query_id] for query_id in judged}
    )
    return counted
