"""Reciprocal rank fusion and score mixture by hand, and the retriever composed of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import pytest

from quarry.errors import UserError
from quarry.retrieval.bm25 import BM25Retriever
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.fusion import HybridRetriever, reciprocal_rank_fusion, score_mixture
from quarry.retrieval.retriever import Retriever
from quarry.retrieval.terms import CodeAnalyzer, TextAnalyzer
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


def test_mixture_by_hand() -> None:
    lexical: Run = {"q": {"a": 9.0, "b": 5.0, "c": 1.0}}
    dense: Run = {"q": {"b": 0.9, "d": 0.8}}
    mixed = score_mixture([lexical, dense], top_k=10, weights=[1, 3])
    # lexical 1, 0.5, 0 at a weight of 0.25; dense 1, 0 at 0.75. What is lacking counts 0.
    assert list(mixed["q"].items()) == [("b", 0.875), ("a", 0.25), ("d", 0.0), ("c", 0.0)]


def test_the_scale_of_the_scores_and_of_the_weights_does_not_matter() -> None:
    first: Run = {"q": {"a": 3.0, "b": 2.5, "c": 1.0}}
    second: Run = {"q": {"c": 0.5, "a": 0.25}}
    mixed = score_mixture([first, second], top_k=3, weights=[0.5, 0.5])
    stretched: Run = {"q": {name: 8 * score - 100 for name, score in first["q"].items()}}
    assert score_mixture([stretched, second], top_k=3, weights=[2, 2]) == mixed
    other_order = score_mixture([second, first], top_k=3, weights=[0.5, 0.5])
    assert list(other_order["q"].items()) == list(mixed["q"].items())


@pytest.mark.parametrize("scores", [{"a": 7.0}, {"a": 7.0, "b": 7.0}, {"a": 0.0}])
def test_equal_scores_are_all_best(scores: dict[str, float]) -> None:
    mixed = score_mixture([{"q": scores}, {"q": {}}], top_k=5, weights=[0.5, 0.5])
    assert mixed == {"q": dict.fromkeys(scores, 0.5)}


def test_a_weight_of_one_keeps_the_order_of_that_run() -> None:
    runs: list[Run] = [{"q": {"a": 3.0, "b": 2.0, "c": 1.0}}, {"q": {"c": 9.0, "b": 8.0}}]
    assert list(score_mixture(runs, top_k=2, weights=[1, 0])["q"]) == ["a", "b"]
    assert next(iter(score_mixture(runs, top_k=2, weights=[0, 1])["q"])) == "c"


@pytest.mark.parametrize("weights", [[], [1], [1, 1, 1], [-1, 2], [0, 0], [float("nan"), 1]])
def test_weights_that_fit_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(UserError, match="for 2 rankings; give one for each"):
        score_mixture([{}, {}], top_k=1, weights=weights)


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
    fusion = partial(reciprocal_rank_fusion, k=1)
    hybrid = HybridRetriever(retrievers={"one": lexical, "two": dense}, fusion=fusion)
    assert hybrid.name == "bm25+dense"
    assert hybrid.uses_encoder
    # b: 1/3 + 1/2, a: 1/2.
    encoder = cast(Encoder, object())
    run = hybrid.retrieve(dataset, top_k=2, encoder=encoder)
    assert run == {"q": {"b": pytest.approx(5 / 6, rel=FP32), "a": 0.5}}
    assert lexical.asked == dense.asked == [(2, encoder)]


TINY = RetrievalSet(name="tiny", queries=[Query(query_id="q", text="x")], corpus=[], qrels={})


def some_retrievers(*names: str) -> dict[str, FixedRetriever]:
    return {name: FixedRetriever(name, {"q": {"a": 2.0, "b": 1.0}}) for name in names}


@pytest.mark.parametrize(("depth", "asked"), [(None, 5), (3, 5), (1000, 1000)])
def test_depth_is_what_each_is_asked_for_at_least_what_is_kept(
    depth: int | None, asked: int
) -> None:
    parts = some_retrievers("x", "y")
    hybrid = HybridRetriever(retrievers=parts, fusion=reciprocal_rank_fusion, depth=depth)
    hybrid.retrieve(TINY, top_k=5)
    assert [part.asked for part in parts.values()] == [[(asked, None)]] * 2


@pytest.mark.parametrize("depth", [None, 2, 1000])
def test_self_matches_are_gone_before_ranks_and_scales_are_taken(depth: int | None) -> None:
    dataset = replace(TINY, self_matches={"q": "own"})
    lexical = FixedRetriever("x", {"q": {"own": 100.0, "a": 3.0, "b": 2.0, "c": 1.0}})
    dense = FixedRetriever("y", {"q": {"b": 0.5, "a": 0.4, "c": 0.3}})
    parts = {"x": lexical, "y": dense}
    asked = max(depth or 0, 3) + 1  # one more for the self match

    hybrid = HybridRetriever(
        retrievers=parts, fusion=partial(reciprocal_rank_fusion, k=1), depth=depth
    )
    first, second, third = 1 / 2, 1 / 3, 1 / 4
    both = pytest.approx(first + second, rel=FP32)
    assert hybrid.retrieve(dataset, top_k=4) == {
        "q": {"b": both, "a": both, "c": pytest.approx(2 * third, rel=FP32)}
    }
    assert lexical.asked == dense.asked == [(asked, None)]

    mixture = partial(score_mixture, weights=[1, 1])
    mixed = HybridRetriever(retrievers=parts, fusion=mixture, depth=depth)
    # 3, 2, 1 and 0.5, 0.4, 0.3 scale to 1, 1/2, 0
    assert mixed.retrieve(dataset, top_k=4) == {
        "q": {"b": pytest.approx(0.75), "a": pytest.approx(0.75), "c": 0.0}
    }


def test_each_part_is_cut_as_deep_as_if_there_were_no_self_match() -> None:
    dataset = replace(TINY, self_matches={"q": "own"})
    with_own = FixedRetriever("x", {"q": {"own": 9.0, "a": 3.0}})
    without = FixedRetriever("y", {"q": {"b": 0.5, "a": 0.4}})  # a is one too deep
    hybrid = HybridRetriever(
        retrievers={"x": with_own, "y": without}, fusion=partial(reciprocal_rank_fusion, k=1)
    )
    assert hybrid.retrieve(dataset, top_k=2) == {"q": {"b": 0.5, "a": 0.5}}


def test_ties_are_ranked_as_asked_for_in_the_runs_and_in_the_result() -> None:
    runs: list[Run] = [{"q": {"a": 1.0, "b": 1.0}}, {"q": {"c": 1.0}}]
    fuse = partial(reciprocal_rank_fusion, runs, top_k=3, k=1)
    third = pytest.approx(1 / 3, rel=FP32)
    assert list(fuse()["q"].items()) == [("c", 0.5), ("b", 0.5), ("a", third)]
    ascending = fuse(ties="ascending")
    assert list(ascending["q"].items()) == [("a", 0.5), ("c", 0.5), ("b", third)]


def test_a_document_below_the_cut_of_both_lists_can_rise_with_depth() -> None:
    class Deep(FixedRetriever):
        def retrieve(
            self, dataset: RetrievalSet, *, top_k: int, encoder: Encoder | None = None
        ) -> Run:
            return {"q": dict(list(self.run["q"].items())[:top_k])}

    parts = {
        "x": Deep("x", {"q": {"a": 3.0, "c": 2.0}}),
        "y": Deep("y", {"q": {"b": 3.0, "c": 2.0}}),
    }
    best = [
        list(
            HybridRetriever(retrievers=parts, fusion=reciprocal_rank_fusion, depth=depth).retrieve(
                TINY, top_k=1
            )["q"]
        )
        for depth in (None, 2)
    ]
    assert best == [["b"], ["c"]]


def test_a_hybrid_of_lexical_retrievers_needs_no_encoder() -> None:
    hybrid = HybridRetriever(
        retrievers=some_retrievers("x", "y"), fusion=reciprocal_rank_fusion, name="mine"
    )
    assert not hybrid.uses_encoder
    assert hybrid.name == "mine"


def test_what_cannot_be_fused_is_refused_before_anything_is_asked() -> None:
    def hybrid(*names: str, depth: int | None = None, weights: Sequence[float] = (1, 1)) -> None:
        fusion = partial(score_mixture, weights=weights)
        HybridRetriever(retrievers=some_retrievers(*names), fusion=fusion, depth=depth)

    with pytest.raises(UserError, match="two or more"):
        hybrid("bm25")
    with pytest.raises(UserError, match=r"retriever\.depth=0 must be at least 1"):
        hybrid("x", "y", depth=0)
    with pytest.raises(UserError, match="for 3 rankings"):
        hybrid("x", "y", "z")


def test_a_hybrid_tells_what_its_lexical_parts_cut_texts_with() -> None:
    bm25 = BM25Retriever(tokenizers={"text": TextAnalyzer(), "code": CodeAnalyzer()})
    parts: dict[str, Retriever] = {"bm25": bm25, "other": FixedRetriever("other", {})}
    hybrid = HybridRetriever(retrievers=parts, fusion=reciprocal_rank_fusion)
    assert hybrid.term_tokenizer("code") == CodeAnalyzer().description
    parts["bm25"] = FixedRetriever("bm25", {})
    hybrid = HybridRetriever(retrievers=parts, fusion=reciprocal_rank_fusion)
    assert hybrid.term_tokenizer("code") is None
