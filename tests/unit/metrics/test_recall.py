"""Capped recall by hand, and as plain recall where nothing is capped."""

from __future__ import annotations

import pytest

from quarry.metrics.recall import capped_recall
from quarry.metrics.trec import evaluate_run, parse_measure
from quarry.types import Qrels, Run

QRELS: Qrels = {
    "many": {"a": 1, "b": 1, "c": 2, "d": 1, "e": 0},
    "one": {"a": 1},
    "none": {"a": 0},
    "lost": {"a": 1},
}
RUN: Run = {
    "many": {"a": 4.0, "e": 3.0, "c": 2.0, "b": 1.0},
    "one": {"x": 2.0, "a": 1.0},
    "none": {"a": 1.0},
}


@pytest.mark.parametrize(
    ("k", "level", "many", "one"),
    [
        (1, 1, 1.0, 0.0),
        (2, 1, 1 / 2, 1.0),  # of two that fit, a
        (3, 1, 2 / 3, 1.0),
        (4, 1, 3 / 4, 1.0),  # all four fit: plain recall
        (10, 1, 3 / 4, 1.0),
        (3, 2, 1.0, 0.0),  # c alone is relevant
    ],
)
def test_divides_by_what_fits(k: int, level: int, many: float, one: float) -> None:
    values = capped_recall(qrels=QRELS, run=RUN, k=k, relevance_level=level)
    assert values == pytest.approx({"many": many, "one": one, "none": 0, "lost": 0})


def test_ties_at_the_cut_fall_by_document_id_descending() -> None:
    run: Run = {"q": {"a": 1.0, "b": 1.0}}
    assert capped_recall(qrels={"q": {"b": 1}}, run=run, k=1) == {"q": 1.0}
    assert capped_recall(qrels={"q": {"a": 1}}, run=run, k=1) == {"q": 0.0}


def test_is_a_measure_like_others() -> None:
    assert parse_measure("Recall_cap@100").k == 100
    scores = evaluate_run(qrels=QRELS, run=RUN, measures=["Recall_cap@2", "Recall@2", "nDCG@2"])
    assert scores["Recall_cap@2"]["many"] == 0.5
    assert scores["Recall@2"]["many"] == 0.25
    ascending = evaluate_run(
        qrels={"q": {"a": 1}},
        run={"q": {"a": 1.0, "b": 1.0}},
        measures=["Recall_cap@1", "Recall@1", "MRR@1", "nDCG@1"],
        ties="ascending",
    )
    assert all(values == {"q": 1.0} for values in ascending.values())


def test_queries_that_are_left_out_have_no_value() -> None:
    scores = evaluate_run(
        qrels=QRELS,
        run=RUN | {"lost": {}},
        measures=["nDCG@2", "MRR", "Recall_cap@2"],
        missing_queries="left_out",
    )
    assert {tuple(values) for values in scores.values()} == {("many", "one", "none")}
