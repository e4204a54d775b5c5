"""MRR@k by hand, and against trec_eval's reciprocal rank of a run that was cut before."""

import random

import pytest
import pytrec_eval

from quarry.metrics.mrr import reciprocal_rank
from quarry.metrics.ranking import rank_documents

# In order: unjudged, not relevant, grade 1, grade 2.
QRELS = {"q": {"b": 0, "c": 1, "d": 2}}
RUN = {"q": {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}}


@pytest.mark.parametrize(
    ("k", "relevance_level", "expected"),
    [
        (None, 1, 1 / 3),
        (3, 1, 1 / 3),
        (2, 1, 0.0),
        (10, 1, 1 / 3),
        (None, 2, 1 / 4),
        (3, 2, 0.0),
        (None, 3, 0.0),
    ],
)
def test_is_one_over_the_rank_of_the_first_relevant_document(
    k: int | None, relevance_level: int, expected: float
) -> None:
    values = reciprocal_rank(qrels=QRELS, run=RUN, k=k, relevance_level=relevance_level)
    assert values == {"q": expected}


def test_ties_at_the_cut_fall_by_document_id_descending() -> None:
    run = {"q": {"a": 1.0, "b": 1.0, "c": 1.0}}
    assert reciprocal_rank(qrels={"q": {"c": 1}}, run=run, k=1) == {"q": 1.0}
    assert reciprocal_rank(qrels={"q": {"a": 1}}, run=run, k=2) == {"q": 0.0}
    assert reciprocal_rank(qrels={"q": {"a": 1}}, run=run, k=3) == {"q": 1 / 3}


def test_every_judged_query_has_a_value_and_no_other() -> None:
    qrels = {"found": {"a": 1}, "without results": {"a": 1}, "absent": {"a": 1}, "no grades": {}}
    run = {"found": {"a": 1.0}, "without results": {}, "no grades": {"a": 1.0}, "other": {"a": 1.0}}
    assert reciprocal_rank(qrels=qrels, run=run, k=10) == {
        "found": 1.0,
        "without results": 0.0,
        "absent": 0.0,
        "no grades": 0.0,
    }


def test_equals_recip_rank_of_the_cut_run_and_pytrec_eval_alone_does_not_cut() -> None:
    rng = random.Random(0)
    documents = [f"d{number}" for number in range(40)]
    # Five possible scores: every cut goes through ties.
    run = {
        f"q{number}": {document: float(rng.randrange(5)) for document in documents}
        for number in range(30)
    }
    qrels = {query_id: {rng.choice(documents): 1} for query_id in run}
    ours = reciprocal_rank(qrels=qrels, run=run, k=10)

    cut = {
        query_id: {document: scores[document] for document in rank_documents(scores)[:10]}
        for query_id, scores in run.items()
    }
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"})
    theirs = {query: values["recip_rank"] for query, values in evaluator.evaluate(cut).items()}
    assert ours == theirs
    assert 0 < sum(value > 0 for value in ours.values()) < len(ours)

    uncut = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank.10"}).evaluate(run)
    assert all(values["recip_rank"] > 0 for values in uncut.values())
