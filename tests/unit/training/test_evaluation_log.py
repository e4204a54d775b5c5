"""Names, tables and who gets them: numbers for every logger, tables for W&B alone."""

from __future__ import annotations

from typing import Any
from unittest.mock import create_autospec

import pytest
from pytorch_lightning.loggers import CSVLogger, WandbLogger

from helpers.conventions import convention
from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.training import evaluation_log
from quarry.training.evaluation_log import (
    examples_table,
    log_report,
    measure_key,
    metric_names,
    metric_values,
    results_table,
)
from quarry.types import Document, Query, Report, RetrievalSet, SetResult


@pytest.mark.parametrize(
    ("measure", "key"),
    [("nDCG@10", "ndcg_at_10"), ("Recall@100", "recall_at_100"), ("MAP", "map"), ("P@1", "p_at_1")],
)
def test_measure_key(measure: str, key: str) -> None:
    assert measure_key(measure) == key


def a_result(name: str, value: float, group: str | None = None) -> SetResult:
    return SetResult(
        name=name,
        metrics={"nDCG@10": value, "MAP": value / 2},
        per_query={},
        run={"q": {"d": 1.0}},
        num_queries=1,
        num_documents=1,
        group=group,
    )


REPORT = Report(
    retriever="dense",
    results=(a_result("scifact", 0.5), a_result("go", 0.25, "code"), a_result("php", 0.75, "code")),
)


def an_evaluator(*names: str, groups: dict[str, str] | None = None) -> Evaluator:
    data = RetrievalSet(
        name="x",
        queries=[Query(query_id="q", text="a question")],
        corpus=[Document(document_id="d", text="an answer")],
        qrels={"q": {"d": 1}},
    )
    sets = [
        BenchmarkSet(name=name, load=lambda: data, group=(groups or {}).get(name)) for name in names
    ]
    benchmark = Benchmark(name="b", sets=sets)
    return Evaluator(
        benchmark=benchmark, measures=["nDCG@10", "MAP"], top_k=10, convention=convention()
    )


def test_values_of_sets_groups_and_their_mean() -> None:
    assert metric_values(REPORT) == {
        "val/scifact/ndcg_at_10": 0.5,
        "val/scifact/map": 0.25,
        "val/go/ndcg_at_10": 0.25,
        "val/go/map": 0.125,
        "val/php/ndcg_at_10": 0.75,
        "val/php/map": 0.375,
        "val/code/ndcg_at_10": 0.5,
        "val/code/map": 0.25,
        "val/mean/ndcg_at_10": 0.5,  # of scifact and code
        "val/mean/map": 0.25,
    }


def test_with_a_failed_set_there_is_no_mean() -> None:
    report = Report(retriever="r", results=REPORT.results[:1], failures={"nq": "no network"})
    assert list(metric_values(report)) == ["val/scifact/ndcg_at_10", "val/scifact/map"]
    assert metric_values(Report(retriever="r", results=(), failures={"nq": "x"})) == {}


def test_names_are_known_before_anything_is_measured() -> None:
    evaluator = an_evaluator("scifact", "go", "php", groups={"go": "code", "php": "code"})
    assert sorted(metric_names(evaluator)) == sorted(metric_values(REPORT))


@pytest.mark.parametrize(
    ("names", "groups"), [(("mean", "a"), {}), (("a", "b"), {"b": "a"}), (("a",), {"a": "mean"})]
)
def test_two_things_of_one_name_are_refused(names: tuple[str, ...], groups: dict[str, str]) -> None:
    with pytest.raises(UserError, match="would name two things in the logs"):
        metric_names(an_evaluator(*names, groups=groups))


def test_the_table_compares_with_the_baseline() -> None:
    bm25 = Report(retriever="bm25", results=(a_result("scifact", 0.75), a_result("nq", 0.5)))
    columns, rows = results_table(REPORT, bm25)
    assert columns == ["set", "metric", "value", "bm25", "delta"]
    assert rows[0] == ["scifact", "nDCG@10", 0.5, 0.75, -0.25]
    assert rows[2] == ["go", "nDCG@10", 0.25, None, None]
    assert ["code", "nDCG@10", 0.5, None, None] in rows
    assert rows[-2][:3] == ["mean", "nDCG@10", 0.5]
    assert results_table(REPORT, None)[0] == ["set", "metric", "value"]
    assert len(results_table(REPORT, None)[1]) == len(rows) == 10


def test_rows_of_examples_are_as_long_as_the_header() -> None:
    evaluator = an_evaluator("scifact")
    report = Report(retriever="r", results=(a_result("scifact", 1.0),))
    (example,) = evaluation_log._examples(report, evaluator, 5)
    columns, rows = examples_table([example])
    (row,) = (dict(zip(columns, row, strict=True)) for row in rows)
    assert row["set"] == "scifact"
    assert (row["query"], row["first_relevant_rank"]) == ("a question", 1)
    assert (row["document_1"], row["is_relevant_1"], row["text_1"]) == ("d", True, "an answer")
    assert row["document_3"] is None


def test_examples_of_many_sets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_log, "MAX_EXAMPLES", 3)
    names = [f"s{i}" for i in range(9)]
    report = Report(retriever="r", results=tuple(a_result(name, 1.0) for name in names))
    shown = evaluation_log._examples(report, an_evaluator(*names), 5)
    assert [example.set_name for example in shown] == ["s0", "s1", "s2"]  # one query each


def logged(kind: type, **more: Any) -> Any:
    pl_logger = create_autospec(kind, instance=True)
    report = Report(retriever="r", results=(a_result("scifact", 1.0),))
    log_report([pl_logger], report, evaluator=an_evaluator("scifact"), step=7, **more)
    pl_logger.log_metrics.assert_called_once_with(metric_values(report), step=7)
    return pl_logger


def test_numbers_for_all_and_tables_for_wandb() -> None:
    logged(CSVLogger, num_examples=5)
    tables = logged(WandbLogger, num_examples=5).log_table.call_args_list
    assert [call.args[0] for call in tables] == ["val/results", "val/examples"]
    assert all(call.kwargs["step"] == 7 for call in tables)
    tables = logged(WandbLogger, num_examples=0).log_table.call_args_list
    assert [call.args[0] for call in tables] == ["val/results"]
