"""Reciprocal rank fusion by hand, and the retriever composed of it."""

from __future__ import annotations

import itertools
from typing import cast

import pytest

from quarry.errors import UserError
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.fusion import HybridRetriever, reciprocal_rank_fusion
from quarry.types import Document, Query, RetrievalSet, Run

FP32 = 1e-7  # relative: scores are rounded to fp32


class FixedRetriever:
    """Answers with a run made in advance and remembers what it was asked for."""

    def __init__(self, name: str, run: Run, *, uses_encoder: bool = False) -> None:
        self.name = name
        self.run = run
        self.uses_encoder = uses_encoder
        self.asked: list[tuple[int, object]] = []

    def retrieve(self, dataset: RetrievalSet, *, top_k: int, encoder: Encoder | None = None) -> Run:
        self.asked.append((top_k, encoder))
        return self.run


def test_hand_computed() -> None:
    lexical = {"q": {"a": 9.0, "b": 5.0, "c": 1.0}}
    dense = {"q": {"b": 0.9, "d": 0.8}}
    fused = reciprocal_rank_fusion([lexical, dense], top_k=10)
    # b: 1/62 + 1/61; a: 1/61; d: 1/62; c: 1/63.
    assert list(fused["q"]) == ["b", "a", "d", "c"]
    expected = {"b": 1 / 62 + 1 / 61, "a": 1 / 61, "d": 1 / 62, "c": 1 / 63}
    assert fused["q"] == pytest.approx(expected, rel=FP32)


def test_k_and_top_k() -> None:
    fused = reciprocal_rank_fusion([{"q": {"a": 2.0, "b": 1.0}}], k=0, top_k=1)
    assert fused == {"q": {"a": 1.0}}


def test_tied_scores_rank_by_descending_id() -> None:
    fused = reciprocal_rank_fusion([{"q": {"a": 1.0, "b": 1.0}}], k=1, top_k=2)
    assert list(fused["q"].items()) == [("b", 0.5), ("a", pytest.approx(1 / 3, rel=FP32))]


def test_fused_ties_rank_by_descending_id() -> None:
    fused = reciprocal_rank_fusion(
        [{"q": {"a": 2.0, "b": 1.0}}, {"q": {"b": 2.0, "a": 1.0}}], top_k=1
    )
    assert list(fused["q"]) == ["b"]


def test_order_of_the_runs_does_not_matter() -> None:
    # Every document has ranks 1, 2, 3 in some order: all scores must be equal to the last bit.
    runs: list[Run] = [
        {"q": {"a": 3.0, "b": 2.0, "c": 1.0}},
        {"q": {"b": 3.0, "c": 2.0, "a": 1.0}},
        {"q": {"c": 3.0, "a": 2.0, "b": 1.0}},
    ]
    results = [reciprocal_rank_fusion(order, top_k=3) for order in itertools.permutations(runs)]
    assert all(list(result["q"].items()) == list(results[0]["q"].items()) for result in results)
    assert list(results[0]["q"]) == ["c", "b", "a"]
    assert len(set(results[0]["q"].values())) == 1


def test_queries_of_any_run_and_empty_ones_stay() -> None:
    fused = reciprocal_rank_fusion([{"q1": {"a": 1.0}, "q2": {}}, {"q3": {"b": 1.0}}], top_k=5)
    assert list(fused) == ["q1", "q2", "q3"]
    assert fused["q2"] == {}


def test_negative_k_is_refused() -> None:
    with pytest.raises(UserError, match="k is -1"):
        reciprocal_rank_fusion([], k=-1, top_k=1)


def test_hybrid_asks_each_retriever_and_fuses() -> None:
    dataset = RetrievalSet(
        name="tiny",
        queries=[Query(query_id="q", text="x")],
        corpus=[Document(document_id=name, text=name) for name in "abc"],
        qrels={"q": {"a": 1}},
    )
    lexical = FixedRetriever("bm25", {"q": {"a": 2.0, "b": 1.0}})
    dense = FixedRetriever("dense", {"q": {"b": 0.5}}, uses_encoder=True)
    # what they are called in a configuration does not matter
    hybrid = HybridRetriever(retrievers={"one": lexical, "two": dense}, k=1)
    assert hybrid.name == "bm25+dense"
    assert hybrid.uses_encoder
    # b: 1/3 + 1/2, a: 1/2.
    encoder = cast(Encoder, object())
    run = hybrid.retrieve(dataset, top_k=2, encoder=encoder)
    assert run == {"q": {"b": pytest.approx(5 / 6, rel=FP32), "a": 0.5}}
    assert lexical.asked == dense.asked == [(2, encoder)]


def test_a_hybrid_of_lexical_retrievers_needs_no_encoder() -> None:
    retrievers = {name: FixedRetriever(name, {"q": {"a": 1.0}}) for name in ("x", "y")}
    assert not HybridRetriever(retrievers=retrievers).uses_encoder


def test_hybrid_of_one_is_refused() -> None:
    with pytest.raises(UserError, match="two or more"):
        HybridRetriever(retrievers={"bm25": FixedRetriever("bm25", {})})
