"""Scoring by hand: missing queries, self-matches, names and the rules noted with each number."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import cast

import pytest

from helpers.conventions import convention
from quarry.errors import Interrupted, UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.convention import Convention
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.retrieval_times import TimedEncoder
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
    rules: Convention | None = None,
) -> Evaluator:
    return Evaluator(
        benchmark=Benchmark(name="b", sets=sets or (benchmark_set(),)),
        measures=measures,
        top_k=top_k,
        convention=rules or convention("beir"),
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
    rules = convention("beir", relevance_level=2)
    (result,) = evaluator(rules=rules).evaluate(FixedRetriever(run)).results
    # of grade 2 there is d2 for q2 alone
    assert result.per_query["MRR@2"] == {"q1": 0, "q2": 0.5, "q3": 0}
    assert result.per_query["nDCG@2"]["q1"] == 1


def test_results_of_retrievers_that_embed_say_in_which_dtype() -> None:
    judge = evaluator()
    judge.corpus_dtype = "float16"
    retriever = FixedRetriever({})
    assert judge.evaluate(retriever).results[0].corpus_dtype is None
    retriever.uses_encoder = True
    assert judge.evaluate(retriever).results[0].corpus_dtype == "float16"


def test_results_of_lexical_retrievers_say_what_cut_the_texts() -> None:
    class Lexical(FixedRetriever):
        def term_tokenizer(self, content: str) -> str:
            return f"words of {content}"

    assert evaluator().evaluate(FixedRetriever({})).results[0].term_tokenizer is None
    assert evaluator().evaluate(Lexical({})).results[0].term_tokenizer == "words of text"


def test_a_report_is_named_after_the_retriever_or_as_asked() -> None:
    retriever = FixedRetriever({})
    assert evaluator().evaluate(retriever).retriever == "fixed"
    assert evaluator().evaluate(retriever, name="untrained").retriever == "untrained"


def test_every_set_is_asked_for_top_k_and_handed_the_encoder() -> None:
    retriever, encoder = FixedRetriever({}), cast(Encoder, object())
    rules = convention("mteb")  # which removes nothing here
    report = evaluator(benchmark_set("a"), benchmark_set("b"), top_k=7, rules=rules).evaluate(
        retriever, encoder=encoder
    )
    assert [result.name for result in report.results] == ["a", "b"]
    assert [asked[:2] for asked in retriever.asked] == [("a", 7), ("b", 7)]
    assert all(cast(TimedEncoder, asked[2]).encoder is encoder for asked in retriever.asked)


@pytest.mark.parametrize("measures", [("nDCG@10",), ("MRR", "Recall@100", "nDCG@10")])
def test_top_k_must_reach_the_deepest_cut(measures: tuple[str, ...]) -> None:
    deepest = 100 if "Recall@100" in measures else 10
    with pytest.raises(UserError, match=rf"top_k={deepest - 1} .*cutoff of {deepest}"):
        evaluator(measures=measures, top_k=deepest - 1)
    evaluator(measures=measures, top_k=deepest)


def test_a_measure_without_cut_takes_any_top_k() -> None:
    assert evaluator(measures=("MAP",), top_k=1).measures == ["MAP"]


@pytest.mark.parametrize("measure", ["ndcg@10", "nDCG@", "nDCG@0", "Recall", "accuracy@1"])
def test_a_misspelt_measure_is_refused_before_anything_is_encoded(measure: str) -> None:
    with pytest.raises(UserError, match=rf"measure '{measure}'"):
        evaluator(measures=("MRR@2", measure), top_k=100)


def test_no_measure_is_refused() -> None:
    with pytest.raises(UserError, match=r"evaluation\.measures=\[\]"):
        evaluator(measures=())


def broken_set(name: str, error: Exception) -> BenchmarkSet:
    def load() -> RetrievalSet:
        raise error

    return BenchmarkSet(name=name, load=load)


def test_caveats_of_a_set_stand_in_its_result() -> None:
    data = replace(benchmark_set().data, caveats=("1 of 5 documents are empty (20.0 %)",))
    flawed = BenchmarkSet(name="tiny", load=lambda: data)
    report = evaluator(flawed).evaluate(FixedRetriever({"q1": {"d1": 1.0}}))
    assert report.results[0].caveats == data.caveats


def test_a_value_outside_zero_to_one_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "quarry.evaluation.evaluator.score_run", lambda *_, **__: {"nDCG@2": {"q1": 8.5e13}}
    )
    with pytest.raises(RuntimeError, match=r"tiny: nDCG@2 of query 'q1' is 85000000000000"):
        evaluator().evaluate(FixedRetriever({"q1": {"d1": 1.0}}))


def test_a_set_that_fails_is_reported_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sets = (
        broken_set("bad", UserError("corpus.jsonl:7: malformed")),
        benchmark_set("good"),
        broken_set("worse", RuntimeError("out of memory")),
    )
    with caplog.at_level(logging.DEBUG):
        report = evaluator(*sets).evaluate(FixedRetriever({"q1": {"d1": 1.0}}))
    assert [result.name for result in report.results] == ["good"]
    assert report.failures == {
        "bad": "corpus.jsonl:7: malformed",
        "worse": "RuntimeError: out of memory",
    }
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        "fixed on bad failed: corpus.jsonl:7: malformed",
        "fixed on worse failed: RuntimeError: out of memory",
    ]
    traces = [r.exc_info[0] for r in caplog.records if r.levelno == logging.DEBUG and r.exc_info]
    assert traces == [UserError, RuntimeError]


def test_a_set_that_another_process_cannot_read_is_left_out_here_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else this process would encode its share and wait for theirs."""
    told: list[object] = []

    def gathered(reason: object) -> list[object]:
        told.append(reason)
        return [reason, "no such file" if len(told) == 1 else None]

    monkeypatch.setattr("quarry.distributed.world.gathered", gathered)
    retriever = FixedRetriever({"q1": {"d1": 1.0}})
    report = evaluator(benchmark_set("torn"), benchmark_set("good")).evaluate(retriever)
    assert told == [None, None]
    assert report.failures == {"torn": "On another rank: no such file"}
    assert [result.name for result in report.results] == ["good"]
    assert len(retriever.asked) == 1


def test_all_sets_failing_is_an_error_and_of_one_set_it_is_its_own() -> None:
    bad = [broken_set(name, RuntimeError(f"no {name}")) for name in "ab"]
    with pytest.raises(UserError, match=r"^fixed failed on every set: a, b\."):
        evaluator(*bad).evaluate(FixedRetriever({}))
    with pytest.raises(RuntimeError, match="^no a$"):
        evaluator(bad[0]).evaluate(FixedRetriever({}))


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted("saved")])
def test_an_interruption_is_no_failure(stop: BaseException) -> None:
    sets = (benchmark_set("good"), broken_set("bad", stop))  # type: ignore[arg-type]
    with pytest.raises(type(stop)):
        evaluator(*sets).evaluate(FixedRetriever({}))


def test_parts_of_a_group_count_as_one() -> None:
    sets = (benchmark_set("a"), benchmark_set("b"), benchmark_set("c"))
    sets[0].group = sets[1].group = "parts"
    run: Run = {"q1": {"d1": 1.0}}
    report = evaluator(*sets, measures=("MRR@2",)).evaluate(FixedRetriever(run))
    assert [result.group for result in report.results] == ["parts", "parts", None]


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


def test_a_constant_ranking_is_logged_and_stays_with_the_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run: Run = {query: {"d1": 0.0, "d2": 0.0} for query in QRELS}
    result = evaluator().evaluate(FixedRetriever(run)).results[0]
    assert "fixed on tiny: all scores are 0" in caplog.text
    assert [line.partition(",")[0] for line in result.caveats] == ["fixed: all scores are 0"]
