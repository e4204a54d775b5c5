"""What a training run reports: its hybrid, and a run without an evaluation before training."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.conventions import convention
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.metrics.ranking import Ties, rank_documents
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.fusion import HybridRetriever, reciprocal_rank_fusion
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks import training_reports
from quarry.tasks.evaluate import write_and_draw
from quarry.tasks.training_reports import TrainingReports, draw, hybrid_report, last_reports
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
        best = {document_id: scores[document_id] for document_id in rank_documents(scores)[:top_k]}
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


def test_without_an_evaluation_before_training_the_trained_model_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, run = evaluator(removes=False, ties="descending"), RunDirectory.create(tmp_path / "run")
    reports = TrainingReports(evaluator=judge, run=run, baseline=None, before_training=False)
    reports.begin(is_resumed=True)
    assert (reports.made, reports.baseline()) == ([], None)
    trained = judge.evaluate(ByText("trained", {"a": 1}))
    assert last_reports(judge, run, [trained], has_best=False) == []  # no hybrid with itself
    shown: list[Mapping[str, float]] = []
    monkeypatch.setattr(
        training_reports, "plot_learning_curve", lambda *_, **more: shown.append(more["baselines"])
    )
    evaluation: Any = SimpleNamespace(history=[(1, 0.5)])
    losses: Any = SimpleNamespace(points=[(1, 2.0)])
    draw([trained], [trained], judge, evaluation, losses, run=run)
    assert shown == [{}]
    assert {path.name for path in (run.path / "plots").iterdir()} == {"results.png"}


def test_a_run_without_matplotlib_has_its_reports_and_no_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    judge, run = evaluator(removes=False, ties="descending"), RunDirectory.create(tmp_path / "run")
    trained = judge.evaluate(ByText("trained", {"a": 1}))
    evaluation: Any = SimpleNamespace(history=[(1, 0.5)])
    losses: Any = SimpleNamespace(points=[(1, 2.0)])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    draw([trained], [trained], judge, evaluation, losses, run=run)
    assert write_and_draw([trained], judge, run, compared=None)[0].retriever == "trained"
    assert (run.path / "report.md").is_file()
    assert not (run.path / "plots").exists()
    assert len([line for line in caplog.messages if "quarry-retrieval[plots]" in line]) == 2


def test_reports_are_written_as_they_are_made_and_found_again(tmp_path: Path) -> None:
    judge, run = evaluator(removes=False, ties="descending"), RunDirectory.create(tmp_path / "run")
    settings: Any = {
        "evaluator": judge,
        "run": run,
        "baseline": ByText("bm25", {"a": 1}),
        "before_training": True,
    }
    reports = TrainingReports(**settings)
    reports.begin(is_resumed=False)
    reports.add(judge.evaluate(ByText("untrained", {"b": 1})))
    best = judge.evaluate(ByText("best", {"c": 1}))
    reports.write(best)
    assert [each.retriever for each in reports.made] == ["bm25", "untrained"]
    resumed = TrainingReports(**settings)
    resumed.begin(is_resumed=True)
    assert [each.retriever for each in resumed.made] == ["bm25", "untrained"]
    assert resumed.made[1].results[0].run == reports.made[1].results[0].run
    baseline = resumed.baseline()
    assert baseline is not None
    assert baseline.retriever == "bm25"
    resumed.add(judge.evaluate(ByText("trained", {"a": 2})))
    resumed.end(has_best=True)
    names = ["bm25", "untrained", "trained", "best", "hybrid"]
    assert [each.retriever for each in resumed.made] == names
    assert resumed.made[3].results[0].run == best.results[0].run


def test_without_it_the_baseline_is_what_all_is_compared_with(tmp_path: Path) -> None:
    judge, run = evaluator(removes=False, ties="descending"), RunDirectory.create(tmp_path / "run")
    reports = [judge.evaluate(ByText(name, {"a": 1})) for name in ("bm25", "trained")]
    (hybrid,) = last_reports(judge, run, reports, has_best=False)
    assert hybrid.retriever == "hybrid"
    evaluation: Any = SimpleNamespace(history=[(0, 0.2), (1, 0.5)])
    losses: Any = SimpleNamespace(points=[])
    draw(reports, reports, judge, evaluation, losses, run=run)
    names = {path.name for path in (run.path / "plots").iterdir()}
    assert names == {"results.png", "queries.png", "learning_curve.png"}
