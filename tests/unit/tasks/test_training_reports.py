"""The hybrid that a training run reports is the one that `retriever=hybrid` is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from helpers.conventions import convention
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.metrics.ranking import Ties, rank
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.fusion import HybridRetriever, reciprocal_rank_fusion
from quarry.tasks.training_reports import hybrid_report
from quarry.types import Document, Query, RetrievalSet, Run


class ByText:
    """Scores a document by its text, whatever its id is called."""

    uses_encoder = False

    def __init__(self, name: str, scores: Mapping[str, float]) -> None:
        self.name = name
        self.scores = scores

    def retrieve(
        self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None = None
    ) -> Run:
        scores = {d.document_id: self.scores.get(d.text, 0.0) for d in dataset.corpus}
        best = {document_id: scores[document_id] for document_id in rank(scores)[:top_k]}
        return {query.query_id: best for query in dataset.queries}


def evaluator(*, removes: bool, ties: Ties) -> Evaluator:
    names = ("q1", "a", "b", "c", "e", "q2")
    data = RetrievalSet(
        name="tiny",
        queries=[Query(query_id=name, text=name) for name in ("q1", "q2", "q3")],
        corpus=[Document(document_id=name, text=name) for name in names],
        qrels={"q1": {"a": 1}, "q2": {"b": 1, "e": 2}, "q3": {"c": 1}},
    )
    return Evaluator(
        benchmark=Benchmark(
            name="b",
            sets=[BenchmarkSet(name="tiny", load=lambda: data, remove_self_match=removes)],
        ),
        measures=["nDCG@2"],
        top_k=2,
        convention=convention(ties=ties),
    )


@pytest.mark.parametrize("removes", [True, False])
@pytest.mark.parametrize("ties", ["descending", "ascending"])
def test_the_hybrid_of_a_training_run_is_that_of_the_retriever(removes: bool, ties: Ties) -> None:
    judge = evaluator(removes=removes, ties=ties)
    lexical = ByText("bm25", {"q1": 9, "q2": 8, "a": 3, "b": 3, "c": 3, "e": 1})
    dense = ByText("dense", {"b": 0.9, "c": 0.8, "a": 0.8, "q1": 0.7, "q2": 0.7})
    parts = {"bm25": lexical, "dense": dense}
    hybrid = HybridRetriever(retrievers=parts, fusion=reciprocal_rank_fusion)
    asked = judge.evaluate(hybrid, name="hybrid")
    assert asked == hybrid_report(judge, [judge.evaluate(part) for part in parts.values()])
    if removes and ties == "ascending":  # for q2, second of BM25: q1 and a there, b and a here
        expected = {"a": 2 / 62, "b": 1 / 61}
        assert asked.results[0].run["q2"] == pytest.approx(expected, rel=1e-6)
