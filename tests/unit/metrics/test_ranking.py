"""The project's order of results: score, then document id, both descending."""

import numpy as np
import pytest
import torch

from quarry.errors import UserError
from quarry.metrics.ranking import rank_documents


def test_orders_by_score_descending() -> None:
    assert rank_documents({"a": 0.1, "b": 3.0, "c": -2.0, "d": 0.5}) == ["b", "d", "a", "c"]


def test_ties_go_by_document_id_descending_as_text() -> None:
    assert rank_documents({"d10": 1.0, "d9": 1.0, "d1": 1.0, "a": 2.0}) == ["a", "d9", "d10", "d1"]


def test_ties_go_the_other_way_where_asked_and_scores_do_not() -> None:
    scores = {"d10": 1.0, "d9": 1.0, "d1": 1.0, "a": 2.0, "b": -0.0, "c": 0.0}
    assert rank_documents(scores, ties="ascending") == ["a", "d1", "d10", "d9", "b", "c"]


def test_the_order_does_not_depend_on_the_order_of_arrival() -> None:
    scores = {"b": 1.0, "a": 1.0, "c": 0.0}
    assert (
        rank_documents(scores) == rank_documents(dict(reversed(scores.items()))) == ["b", "a", "c"]
    )


def test_minus_zero_ties_with_zero() -> None:
    assert rank_documents({"a": 0.0, "b": -0.0}) == ["b", "a"]


def test_scores_are_compared_in_double_precision() -> None:
    assert rank_documents({"a": 1.0 + 1e-12, "b": 1.0}) == ["a", "b"]


def test_takes_numpy_and_torch_scalars() -> None:
    scores = {"a": np.float32(0.5), "b": torch.tensor(0.75), "c": np.float64(0.6), "d": 1}
    assert rank_documents(scores) == ["d", "b", "c", "a"]


def test_infinite_scores_have_a_place() -> None:
    assert rank_documents({"a": float("-inf"), "b": 0.0, "c": float("inf")}) == ["c", "b", "a"]


def test_nan_is_refused_by_document() -> None:
    with pytest.raises(UserError, match=r"document 'b'.*NaN"):
        rank_documents({"a": 1.0, "b": float("nan")})


def test_nothing_ranks_to_nothing() -> None:
    assert rank_documents({}) == []
