"""Rankings of others by hand: what is scored, what is counted, and what is recorded of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.conventions import convention
from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.given_files import GivenFile
from quarry.evaluation.given_rankings import (
    NO_RUN,
    Coverage,
    GivenRanking,
    remarks_on,
    score_given,
)
from quarry.types import Document, Qrels, Query, Report, RetrievalSet

QRELS: Qrels = {"q1": {"d1": 1}, "q2": {"d2": 2, "q2": 1}, "lost": {"d3": 1}}


def benchmark_set(name: str, *, has_corpus: bool = True, **more: bool) -> BenchmarkSet:
    ids = ["d1", "d2", "d3", "q2"] if has_corpus else []
    data = RetrievalSet(
        name=name,
        queries=[Query(query_id=query_id, text="") for query_id in QRELS],
        corpus=[Document(document_id=each, text="") for each in ids],
        qrels=QRELS,
    )
    return BenchmarkSet(name=name, load=lambda: data, **more)


def scored(
    folder: Path,
    runs: dict[str, str],
    *sets: BenchmarkSet,
    rules: str = "beir",
    measures: Sequence[str] = ("nDCG@10", "MRR"),
    top_k: int | None = None,
) -> tuple[list[Report], list[GivenRanking]]:
    """`runs`: SET.NAME -> lines of "query document score"."""
    evaluator = Evaluator(
        benchmark=Benchmark(name="b", sets=sets or (benchmark_set("one"),)),
        measures=measures,
        top_k=sys.maxsize if top_k is None else top_k,
        convention=convention(rules),
    )
    files = []
    for key, text in runs.items():
        set_name, name = key.split(".")
        rows = [line.split() for line in text.split(", ")]
        path = folder / f"{key}.trec"
        path.write_text("".join(f"{q} Q0 {d} 0 {s} t\n" for q, d, s in rows))
        files.append(GivenFile(path=path, set_name=set_name, name=name))
    return score_given(files, evaluator, names=None, is_cut=top_k is not None)


RUN = "q1 d3 2, q1 d1 1, q2 d2 2, q2 q2 1, other d1 1, q1 new 0"


def test_a_run_is_scored_by_the_convention_and_what_it_covers_is_counted(tmp_path: Path) -> None:
    reports, rankings = scored(tmp_path, {"one.a": RUN})
    (result,) = reports[0].results
    # q1 finds d1 at rank 2; q2's own document is removed, d2 (grade 2) is first; one query is lost
    ideal = 2 + 1 / math.log2(3)
    expected = {"q1": 1 / math.log2(3), "q2": 2 / ideal, "lost": 0.0}
    assert result.per_query["nDCG@10"] == pytest.approx(expected)
    assert result.metrics["MRR"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert "other" not in result.run
    assert rankings[0].coverage == Coverage(
        num_judged=3, num_answered=2, num_unjudged=1, num_unknown_documents=1, depth=3
    )
    remarks = remarks_on(rankings[0], measures=["nDCG@10", "MRR"])
    assert remarks == [
        "judged queries without a ranking: 1 of 3",
        "queries without judgements, which are not scored: 1 of 3",
        "documents that are not in the corpus: 1",
        "rankings end at 3, before the cutoff of nDCG@10",
    ]


def test_queries_that_are_missing_count_by_the_rule(tmp_path: Path) -> None:
    (report,), _ = scored(tmp_path, {"one.a": RUN}, rules="study")
    assert report.results[0].per_query["MRR"] == {"q1": 0.5, "q2": 1.0}


def test_ties_are_ordered_by_the_rule(tmp_path: Path) -> None:
    run = {"one.a": "q1 d1 1, q1 d3 1"}
    values = {
        rules: scored(tmp_path, run, rules=rules)[0][0].results[0].per_query["MRR"]["q1"]
        for rules in ("beir", "pyserini")
    }
    assert values == {"beir": 0.5, "pyserini": 1.0}


def test_a_ranking_counts_in_full_unless_it_is_cut(tmp_path: Path) -> None:
    run = {"one.a": "q1 d3 3, q1 d2 2, q1 d1 1"}
    (full,), _ = scored(tmp_path, run)
    (cut,), _ = scored(tmp_path, run, measures=["MRR"], top_k=2)
    assert full.results[0].per_query["MRR"]["q1"] == pytest.approx(1 / 3)
    assert cut.results[0].per_query["MRR"]["q1"] == 0.0
    assert [r.results[0].convention["top_k"] for r in (full, cut)] == ["all", 2]


def test_that_titles_have_no_effect_is_recorded(tmp_path: Path) -> None:
    (report,), _ = scored(tmp_path, {"one.a": RUN})
    record = report.results[0].convention
    assert record["title"] == "no effect: the ranking is given"
    assert "title_rule" not in record
    assert (record["name"], record["self_match"]) == ("beir", "removed")


def test_judgements_alone_have_no_documents_to_miss(tmp_path: Path) -> None:
    _, (ranking,) = scored(tmp_path, {"one.a": RUN}, benchmark_set("one", has_corpus=False))
    assert ranking.coverage.num_unknown_documents is None


def test_a_run_of_another_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of its 1 queries is judged in one \(it has 'x'"):
        scored(tmp_path, {"one.a": "x d1 1"})


def test_systems_are_reports_over_the_sets_that_have_a_run(tmp_path: Path) -> None:
    sets = [benchmark_set(name) for name in ("one", "two", "three")]
    runs = {"two.a": RUN, "one.a": RUN, "two.b": RUN}
    reports, rankings = scored(tmp_path, runs, *sets)
    assert [each.system for each in rankings] == ["a", "a", "b"]  # all tags are t
    assert [[result.name for result in report.results] for report in reports] == [
        ["one", "two"],
        ["two"],
    ]
    assert [report.failures for report in reports] == [{}, {"one": NO_RUN}]
