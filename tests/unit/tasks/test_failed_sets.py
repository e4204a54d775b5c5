"""A training run with a set that failed: what is fused, what is restored, how it ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.conventions import convention
from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.report import write_report
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.summary import refuse_failures
from quarry.tasks.training_reports import draw, hybrid_report, stored_report
from quarry.types import Document, Query, Report, RetrievalSet, Run

RUN: Run = {"q": {"d": 2.0, "e": 1.0}}


@pytest.fixture
def evaluator() -> Evaluator:
    data = RetrievalSet(
        name="tiny",
        queries=[Query(query_id="q", text="q")],
        corpus=[Document(document_id=name, text=name) for name in "de"],
        qrels={"q": {"d": 1}},
    )
    sets = [BenchmarkSet(name=name, load=lambda: data) for name in ("one", "two")]
    return Evaluator(
        benchmark=Benchmark(name="b", sets=sets),
        measures=["MRR@2"],
        top_k=2,
        convention=convention(),
    )


def report(evaluator: Evaluator, name: str, *failed: str) -> Report:
    good = [one for one in evaluator.benchmark.sets if one.name not in failed]
    return Report(
        retriever=name,
        results=tuple(evaluator.score(RUN, one) for one in good),
        failures=dict.fromkeys(failed, "no memory"),
    )


def test_the_hybrid_is_made_where_both_have_a_ranking(evaluator: Evaluator) -> None:
    whole, cut = report(evaluator, "bm25"), report(evaluator, "trained", "one")
    fused = hybrid_report(evaluator, [whole, cut])
    assert [result.name for result in fused.results] == ["two"]
    assert fused.failures == {"one": "no memory"}
    half = replace(cut, results=(replace(cut.results[0], corpus_dtype="float16"),))
    assert hybrid_report(evaluator, [whole, half]).results[0].corpus_dtype == "float16"
    words = replace(whole, results=tuple(replace(r, term_tokenizer="w") for r in whole.results))
    assert hybrid_report(evaluator, [words, cut]).results[0].term_tokenizer == "w"
    assert [r.name for r in hybrid_report(evaluator, [whole, whole]).results] == ["one", "two"]


def test_a_resumed_run_finds_what_there_was(evaluator: Evaluator, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    whole = report(evaluator, "untrained", "two")
    before = replace(
        whole, results=(replace(whole.results[0], corpus_dtype="float16", term_tokenizer="w"),)
    )
    write_report([before], run.path, measures=["MRR@2"])
    assert stored_report(evaluator, run, "untrained") == before


def test_a_run_with_failures_ends_in_an_error_that_lists_them(
    evaluator: Evaluator, tmp_path: Path
) -> None:
    run = RunDirectory.create(tmp_path / "run")
    whole, cut = report(evaluator, "bm25"), report(evaluator, "dense", "one")
    refuse_failures([whole], run)
    with pytest.raises(UserError, match=r"^1 of the sets failed.* \(dense: one\).*run/report\.md"):
        refuse_failures([whole, cut], run)


def test_without_a_mean_in_any_evaluation_there_is_no_curve_and_no_error(
    evaluator: Evaluator, tmp_path: Path
) -> None:
    run = RunDirectory.create(tmp_path / "run")
    reports = [report(evaluator, name, "one") for name in ("bm25", "untrained", "trained")]
    evaluation: Any = SimpleNamespace(history=[])
    losses: Any = SimpleNamespace(points=[(1, 2.0)])
    draw(reports, reports, evaluator, evaluation, losses, run=run)
    found = {path.name for path in (run.path / "plots").iterdir()}
    assert found == {"results.png", "queries.png"}
