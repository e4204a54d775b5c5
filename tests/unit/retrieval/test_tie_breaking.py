"""Exact top-k with trec_eval's tie-breaking, against a plain sort."""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval

from quarry.errors import UserError
from quarry.metrics.ranking import rank_documents
from quarry.retrieval.tie_breaking import tie_order, top_k_by_score


def by_sorting(scores: np.ndarray, document_ids: list[str], k: int) -> list[str]:
    pairs = sorted(zip(scores.tolist(), document_ids, strict=True), reverse=True)
    return [document_id for _, document_id in pairs[:k]]


def test_tie_order_is_descending_by_code_point() -> None:
    # "9" > "10" as text; a lower-case letter follows every capital; é follows z.
    assert tie_order(["10", "9", "a", "B", "é", "z"]).tolist() == [5, 4, 2, 3, 0, 1]


def test_tie_order_is_that_of_utf8_bytes() -> None:
    ids = ["a", "é", "\uffff", "\U0001f600", "Z", ""]
    descending = sorted(ids, key=lambda item: item.encode(), reverse=True)
    assert tie_order(ids).tolist() == [descending.index(item) for item in ids]


def test_hand_computed_border_tie() -> None:
    document_ids = ["d1", "d2", "d3", "d4", "d5"]
    scores = np.array([0.5, 0.7, 0.5, 0.5, 0.1], dtype=np.float32)
    best = top_k_by_score(scores, tie_order(document_ids), k=3)
    assert [document_ids[position] for position in best] == ["d2", "d4", "d3"]


@pytest.mark.parametrize("num_levels", [1, 2, 7, 1000])
@pytest.mark.parametrize("k", [1, 2, 10, 99, 100, 101, 1000])
def test_equals_a_full_sort(num_levels: int, k: int) -> None:
    rng = np.random.default_rng(num_levels)
    scores = rng.integers(num_levels, size=100).astype(np.float32)
    document_ids = [f"doc{number}" for number in rng.permutation(100)]
    best = top_k_by_score(scores, tie_order(document_ids), k=k)
    assert [document_ids[position] for position in best] == by_sorting(scores, document_ids, k)


def test_minus_infinity_comes_last_and_arguments_stay() -> None:
    scores = np.array([-np.inf, 1.0, -np.inf, 0.0])
    order = tie_order(["a", "b", "c", "d"])
    assert top_k_by_score(scores, order, k=3).tolist() == [1, 3, 2]
    assert scores.tolist() == [-np.inf, 1.0, -np.inf, 0.0]
    assert order.tolist() == [3, 2, 1, 0]


def test_nan_is_refused() -> None:
    with pytest.raises(UserError, match="NaN"):
        top_k_by_score(np.array([1.0, np.nan]), tie_order(["a", "b"]), k=1)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_agrees_with_the_one_order_and_with_trec_eval(k: int) -> None:
    scores = {"a": 1.0, "c": 2.0, "b": 2.0, "d": 0.5, "e": 1.0}
    document_ids = list(scores)
    best = top_k_by_score(np.array(list(scores.values())), tie_order(document_ids), k=k)
    ranking = [document_ids[position] for position in best]
    assert ranking == rank_documents(scores)[:k] == ["c", "b", "e", "a", "d"][:k]
    for place, relevant in enumerate(ranking, start=1):
        evaluator = pytrec_eval.RelevanceEvaluator({"q": {relevant: 1}}, {"recip_rank"})
        assert evaluator.evaluate({"q": scores})["q"]["recip_rank"] == pytest.approx(1 / place)
