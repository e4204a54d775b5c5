"""Two stages: the order of both, the first one made once, its scores below the reranker's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from helpers.rerankers import classifier_folder
from quarry.data.pair_tokenization import Pair
from quarry.errors import UserError
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.reranked import RerankedRetriever, stages_of
from quarry.retrieval.rerankers.pair_scorer import PairScores
from quarry.retrieval.rerankers.reranker_spec import RerankerSpec
from quarry.types import Document, Query, RetrievalSet, Run

NAMES = ("d1", "d2", "d3", "d4", "d5")


class Listed:
    """A first stage with a fixed ranking, d1 to d5."""

    name = "listed"
    uses_encoder = False

    def __init__(self) -> None:
        self.asked: list[int] = []

    def retrieve(
        self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None = None
    ) -> Run:
        self.asked.append(top_k)
        scores = {name: 5.0 - place for place, name in enumerate(NAMES)}
        return {q.query_id: dict(list(scores.items())[:top_k]) for q in dataset.queries}


class ByText:
    """A reranker whose score is the number in the document's text."""

    def __init__(self) -> None:
        self.num_pairs: list[int] = []

    def score(self, pairs: Sequence[Pair], *, label: str) -> PairScores:
        self.num_pairs.append(len(pairs))
        scores = [float(document.text) for _, document in pairs]
        return PairScores(scores=np.array(scores, np.float32), num_unique=len(pairs), num_cut=0)


def collection(*texts: str, **more: object) -> RetrievalSet:
    return RetrievalSet(
        name="made",
        queries=[Query(query_id="q", text="q")],
        corpus=[Document(document_id=n, text=t) for n, t in zip(NAMES, texts, strict=True)],
        qrels={"q": {"d1": 1}},
        **more,  # type: ignore[arg-type]
    )


def retriever_of(depth: int) -> tuple[RerankedRetriever, Listed, ByText]:
    first, reranker = Listed(), ByText()
    retriever = RerankedRetriever(first_stage=first, reranker=RerankerSpec(), depth=depth)
    retriever._scorer = reranker  # type: ignore[assignment]
    return retriever, first, reranker


def test_the_best_are_reranked_and_the_others_follow_in_their_order() -> None:
    retriever, _, _ = retriever_of(depth=3)
    run = retriever.retrieve(collection("1.5", "3", "2", "9", "9"), top_k=5)
    assert run == {"q": {"d2": 3.0, "d3": 2.0, "d1": 1.5, "d4": 0.0, "d5": -1.0}}
    assert list(run["q"]) == ["d2", "d3", "d1", "d4", "d5"]


def test_ties_go_by_id_descending() -> None:
    retriever, _, _ = retriever_of(depth=3)
    run = retriever.retrieve(collection("1", "1", "1", "0", "0"), top_k=5)
    assert list(run["q"]) == ["d3", "d2", "d1", "d4", "d5"]


@pytest.mark.parametrize(("depth", "top_k", "asked"), [(4, 2, 4), (2, 4, 4), (9, 5, 9)])
def test_a_depth_may_be_above_and_below_what_is_returned(
    depth: int, top_k: int, asked: int
) -> None:
    retriever, first, reranker = retriever_of(depth)
    run = retriever.retrieve(collection("1", "2", "3", "4", "5"), top_k=top_k)
    assert first.asked == [asked]
    assert reranker.num_pairs == [min(depth, 5)]
    assert len(run["q"]) == top_k


def test_very_large_scores_keep_the_others_apart_in_fp32() -> None:
    retriever, _, _ = retriever_of(depth=1)
    run = retriever.retrieve(collection("-3e9", "0", "0", "0", "0"), top_k=5)
    scores = np.array(list(run["q"].values()), dtype=np.float32)
    assert list(run["q"]) == list(NAMES)
    assert (np.diff(scores) < 0).all()


def test_the_query_itself_takes_no_place_of_the_depth() -> None:
    retriever, first, reranker = retriever_of(depth=2)
    dataset = collection("1", "2", "3", "4", "5", self_matches={"q": "d1"})
    run = retriever.retrieve(dataset, top_k=4)  # with room for the query itself, as always
    assert list(run["q"]) == ["d3", "d2", "d4"]
    assert reranker.num_pairs == [2]
    assert first.asked == [4]


def test_both_stages_share_one_first_ranking() -> None:
    retriever, first, _ = retriever_of(depth=3)
    dataset = collection("1.5", "3", "2", "9", "9")
    one, two = stages_of(retriever)
    assert (one.name, two.name) == ("listed", "listed-reranked")
    assert list(one.retrieve(dataset, top_k=2)["q"]) == ["d1", "d2"]
    assert list(two.retrieve(dataset, top_k=2)["q"]) == ["d2", "d3"]
    assert first.asked == [3]
    two.retrieve(dataset, top_k=2)  # asked again, the first stage is made again
    assert first.asked == [3, 3]
    assert stages_of(first) == (first,)


def test_a_query_without_documents_stays_empty() -> None:
    retriever, first, _ = retriever_of(depth=3)
    first.retrieve = lambda dataset, **_: {"q": {}}  # type: ignore[method-assign]
    assert retriever.retrieve(collection("1", "2", "3", "4", "5"), top_k=5) == {"q": {}}


def test_a_real_reranker_ranks_by_its_scores(tmp_path: Path) -> None:
    spec = RerankerSpec(path=str(classifier_folder(tmp_path, "bert")))
    retriever = RerankedRetriever(first_stage=Listed(), reranker=spec, depth=5)
    dataset = collection("abc", "x", "some text", "q", "more of it")
    scorer = spec.load(key="retriever.reranker")
    pairs = [(dataset.queries[0], document) for document in dataset.corpus]
    scores = scorer.score(pairs, label="all").scores.tolist()
    wanted = dict(sorted(zip(NAMES, scores, strict=True), key=lambda pair: -pair[1]))
    run = retriever.retrieve(dataset, top_k=5)
    assert list(run["q"]) == list(wanted)
    assert run["q"] == wanted


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_below_one_is_refused(depth: int) -> None:
    with pytest.raises(UserError, match=rf"retriever\.depth={depth}"):
        RerankedRetriever(first_stage=Listed(), reranker=RerankerSpec(), depth=depth)


def test_two_rerankers_after_each_other_are_refused() -> None:
    first, _, _ = retriever_of(depth=3)
    with pytest.raises(UserError, match=r"retriever\.first_stage=reranked"):
        RerankedRetriever(first_stage=first, reranker=RerankerSpec())


def test_a_reranker_is_refused_before_the_first_stage_ranks(tmp_path: Path) -> None:
    first = Listed()
    spec = RerankerSpec(path=str(tmp_path / "none"))
    retriever = RerankedRetriever(first_stage=first, reranker=spec)
    with pytest.raises(UserError, match=r"retriever\.reranker\.path="):
        retriever.retrieve(collection("1", "2", "3", "4", "5"), top_k=5)
    with pytest.raises(UserError, match=r"retriever\.reranker\.path="):
        retriever.check()
    assert first.asked == []
