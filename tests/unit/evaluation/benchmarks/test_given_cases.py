"""Small inputs that went wrong, each with its right outcome: ../shared/cases says what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.conventions import convention
from quarry.errors import UserError
from quarry.evaluation.benchmarks.folder import folder_benchmark
from quarry.evaluation.evaluator import Evaluator
from quarry.retrieval.bm25 import BM25Retriever
from quarry.retrieval.terms import TextAnalyzer
from quarry.types import Report

CASES = Path(__file__).resolve().parents[4].parent / "shared" / "cases"
MEASURE = "nDCG@10"


def evaluated(tmp_path: Path, name: str, **more: str) -> Report:
    if not CASES.is_dir():
        pytest.skip("needs the folder shared/cases beside the repository")
    benchmark = folder_benchmark(
        path=str(CASES / name),
        sets=None,
        split="test",
        remove_self_match=False,
        content="text",
        cache_dir=tmp_path,
        **more,
    )
    evaluator = Evaluator(
        benchmark=benchmark, measures=[MEASURE], top_k=10, convention=convention("beir")
    )
    return evaluator.evaluate(BM25Retriever(tokenizers={"text": TextAnalyzer()}))


@pytest.mark.parametrize(
    "name",
    ["a03-trec4-tab", "a04-trec4-space", "a06-float-grades", "a24-mteb-id-key",
     "a25-mteb-qrels-jsonl"],
)  # fmt: skip
def test_a_set_in_a_usual_form_is_read(tmp_path: Path, name: str) -> None:
    (result,) = evaluated(tmp_path, f"beir/{name}").results
    assert result.metrics[MEASURE] == 1
    assert result.caveats == ()


def test_ids_in_another_composition_are_told_beside_the_number(tmp_path: Path) -> None:
    (result,) = evaluated(tmp_path, "beir/a15-nfd-ids").results
    assert result.metrics[MEASURE] == pytest.approx(1 / 3)
    (caveat,) = result.caveats
    assert caveat.startswith(
        "2 of 3 judged documents are not in the corpus; 2 would be after Unicode normalization"
    )


def test_missing_documents_are_told_beside_the_number(tmp_path: Path) -> None:
    (result,) = evaluated(tmp_path, "beir/a22-docs-missing-90pct").results
    assert result.metrics[MEASURE] == pytest.approx(1 / 3)
    assert result.caveats == (
        "10 of 11 judged documents are not in the corpus (90.9 % are missing)",
    )


def test_an_absent_query_is_refused_by_its_id_or_dropped_with_a_caveat(tmp_path: Path) -> None:
    name = "beir/a21-query-missing"
    with pytest.raises(UserError, match=r"1 of 4 judged queries .* 'q9'.*absent_queries=drop"):
        evaluated(tmp_path, name)
    (result,) = evaluated(tmp_path, name, absent_queries="drop").results
    assert (result.metrics[MEASURE], result.num_queries) == (1, 3)
    (caveat,) = result.caveats
    assert caveat.startswith("1 of 4 judged queries were dropped")
    assert "'q9'" in caveat


def test_no_set_of_a_folder_is_passed_over(tmp_path: Path) -> None:
    """gamma's third query has no positive judgement: by trec_eval's rules it counts 0."""
    report = evaluated(tmp_path, "skipped-set")
    found = {result.name: result.metrics[MEASURE] for result in report.results}
    assert found == {"alpha": 1, "beta": 1, "gamma": pytest.approx(2 / 3)}
    assert report.results[2].caveats == (
        "1 of 3 judged queries have no judgement above 0 and count 0 (33.3 %)",
    )
    assert report.failures == {}


def test_in_a_folder_of_sets_the_one_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    report = evaluated(tmp_path, "beir")
    assert list(report.failures) == ["a21-query-missing"]
    assert len(report.results) == 7
