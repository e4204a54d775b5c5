"""Scoring by hand: missing queries, self-matches, names and the rules noted with each number."""

from __future__ import annotations

import math
from typing import cast

import pytest

from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.evaluator import Evaluator
from quarry.retrieval.encoder import Encoder
from quarry.types import Document, Qrels, Query, RetrievalSet, Run

QRELS: Qrels = {"q1": {"d1": 1, "d2": 1}, "q2": {"d2": 2}, "q3": {"d3": 1}}


class FixedRetriever:
    """Answers with the best of rankings made in advance, and notes what it was asked for."""

    name = "fixed"
    uses_encoder = False

    def __init__(self, run: Run) -> None:
        self.run = run
        self.asked: list[tuple[str, int, object]] = []

    def retrieve(self, dataset: RetrievalSet, *, top_k: int, encoder: Encoder | None = None) -> Run:
        self.asked.append((dataset.name, top_k, encoder))
        return {query: dict(list(scores.items())[:top_k]) for query, scores in self.run.items()}


def benchmark_set(
    name: str = "tiny", *, qrels: Qrels = QRELS, remove_self_match: bool = False
) -> BenchmarkSet:
    data = RetrievalSet(
        name=name,
        queries=[Query(query_id=query_id, text=query_id) for query_id in qrels],
        corpus=[Document(document_id=f"d{i}", text=str(i)) for i in range(1, 6)],
        qrels=qrels,
    )
    return BenchmarkSet(name=name, load=lambda: data, remove_self_match=remove_self_match)


def evaluator(
    *sets: BenchmarkSet,
    measures: tuple[str, ...] = ("nDCG@2", "Recall@2", "MRR@2"),
    top_k: int = 2,
    relevance_level: int = 1,
) -> Evaluator:
    return Evaluator(
        benchmark=Benchmark(name="b", sets=sets or (benchmark_set(),)),
        measures=measures,
        top_k=top_k,
        relevance_level=relevance_level,
    )


def test_metrics_by_hand_and_a_missing_query_counts_0() -> None:
    run: Run = {"q1": {"d3": 3.0, "d1": 2.0}, "q2": {"d2": 1.0}}  # q3 is not answered
    result = evaluator().evaluate(FixedRetriever(run)).results[0]
    discount = 1 / math.log2(3)
    assert result.per_query == {
        "nDCG@2": pytest.approx({"q1": discount / (1 + discount), "q2": 1, "q3": 0}),
        "Recall@2": {"q1": 0.5, "q2": 1, "q3": 0},
        "MRR@2": {"q1": 0.5, "q2": 1, "q3": 0},
    }
    assert result.metrics == pytest.approx(
        {"nDCG@2": (discount / (1 + discount) + 1) / 3, "Recall@2": 0.5, "MRR@2": 0.5}
    )
    assert result.run == run
    assert (result.num_queries, result.num_documents) == (3, 5)


def test_the_relevance_level_counts_for_all_but_ndcg() -> None:
    run: Run = {query: {"d1": 3.0, "d2": 2.0} for query in QRELS}
    (result,) = evaluator(relevance_level=2).evaluate(FixedRetriever(run)).results
    # of grade 2 there is d2 for q2 alone
    assert result.per_query["MRR@2"] == {"q1": 0, "q2": 0.5, "q3": 0}
    assert result.per_query["nDCG@2"]["q1"] == 1


def test_a_report_is_named_after_the_retriever_or_as_asked() -> None:
    retriever = FixedRetriever({})
    assert evaluator().evaluate(retriever).retriever == "fixed"
    assert evaluator().evaluate(retriever, name="untrained").retriever == "untrained"


def test_every_set_is_asked_for_top_k_and_handed_the_encoder() -> None:
    retriever, encoder = FixedRetriever({}), cast(Encoder, object())
    report = evaluator(benchmark_set("a"), benchmark_set("b"), top_k=7).evaluate(
        retriever, encoder=encoder
    )
    assert [result.name for result in report.results] == ["a", "b"]
    assert retriever.asked == [("a", 7, encoder), ("b", 7, encoder)]


def test_a_self_match_is_removed_and_top_k_documents_are_left() -> None:
    qrels: Qrels = {"d1": {"d2": 1}, "d5": {"d2": 1}, "q": {"d2": 1}}
    ranking = {"d1": 5.0, "d4": 4.0, "d2": 3.0, "d3": 2.0}
    retriever = FixedRetriever({query: dict(ranking) for query in qrels})
    sets = benchmark_set(qrels=qrels, remove_self_match=True)
    (result,) = evaluator(sets).evaluate(retriever).results
    assert retriever.asked == [("tiny", 3, None)]
    assert result.run == {
        "d1": {"d4": 4.0, "d2": 3.0},
        "d5": {"d1": 5.0, "d4": 4.0},
        "q": {"d1": 5.0, "d4": 4.0},
    }
    assert result.per_query["Recall@2"] == {"d1": 1, "d5": 0, "q": 0}
    assert result.convention["remove_self_match"] is True


def test_without_the_flag_an_equal_id_is_an_accident_and_stays() -> None:
    retriever = FixedRetriever({"d1": {"d1": 5.0, "d2": 4.0}})
    (result,) = evaluator(benchmark_set(qrels={"d1": {"d1": 1}})).evaluate(retriever).results
    assert result.metrics["MRR@2"] == 1
    assert result.convention["remove_self_match"] is False


def test_the_rules_are_stored_with_the_numbers() -> None:
    (result,) = evaluator(relevance_level=2, top_k=9).evaluate(FixedRetriever({})).results
    assert result.convention == {
        "remove_self_match": False,
        "relevance_level": 2,
        "missing_queries": "count as 0",
        "ties": "document id, descending",
        "title": "title and text joined",
        "top_k": 9,
    }


def test_runs_of_an_earlier_process_score_the_same() -> None:
    run: Run = {"q1": {"d3": 3.0, "d1": 2.0}, "q2": {"d2": 1.0}}
    both = evaluator(benchmark_set("a"), benchmark_set("b"))
    direct = both.evaluate(FixedRetriever(run), name="x")
    assert both.score_all([run, run], name="x") == direct
    with pytest.raises(ValueError, match="zip"):
        both.score_all([run], name="x")


@pytest.mark.parametrize("measures", [("nDCG@10",), ("MRR", "Recall@100", "nDCG@10")])
def test_top_k_must_reach_the_deepest_cut(measures: tuple[str, ...]) -> None:
    deepest = 100 if "Recall@100" in measures else 10
    with pytest.raises(UserError, match=rf"top_k={deepest - 1} .*cut of {deepest}"):
        evaluator(measures=measures, top_k=deepest - 1)
    evaluator(measures=measures, top_k=deepest)


def test_a_measure_without_cut_takes_any_top_k() -> None:
    assert evaluator(measures=("MAP",), top_k=1).measures == ["MAP"]


@pytest.mark.parametrize("measure", ["ndcg@10", "nDCG@", "nDCG@0", "Recall", "accuracy@1"])
def test_a_misspelt_measure_is_refused_before_anything_is_encoded(measure: str) -> None:
    with pytest.raises(UserError, match=rf"measure '{measure}'"):
        evaluator(measures=("MRR@2", measure), top_k=100)


def test_no_measure_is_refused() -> None:
    with pytest.raises(UserError, match=r"evaluation\.measures is empty"):
        evaluator(measures=())


@pytest.mark.parametrize(
    ("queries", "documents", "message"),
    [
        (["q 1"], ["d"], r"tiny: query id 'q 1'"),
        (["q"], ["d", "a\tb"], r"tiny: document id 'a\\tb'"),
        (["q"], [""], r"tiny: document id ''"),
    ],
)
def test_ids_that_no_run_file_can_hold_are_refused_before_anything_is_asked(
    queries: list[str], documents: list[str], message: str
) -> None:
    data = RetrievalSet(
        name="tiny",
        queries=[Query(query_id=name, text="x") for name in queries],
        corpus=[Document(document_id=name, text="x") for name in documents],
        qrels={name: {"d": 1} for name in queries},
    )
    retriever = FixedRetriever({})
    with pytest.raises(UserError, match=message):
        evaluator(BenchmarkSet(name="tiny", load=lambda: data)).evaluate(retriever)
    assert retriever.asked == []


def test_a_set_says_what_group_it_is_of() -> None:
    data = benchmark_set().data
    grouped = BenchmarkSet(name="tiny", load=lambda: data, group="forums")
    assert evaluator(grouped).score({}, grouped).group == "forums"
