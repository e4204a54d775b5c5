"""Every rule of every convention, on sets so small that the numbers are computed by hand.

What a value of 1 / log2(rank + 1) is: 1, 0.6309, 0.5 at ranks 1, 2, 3.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import pytest

from helpers.conventions import NAMES, convention
from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.convention import Convention, recorded_rules
from quarry.evaluation.evaluator import Evaluator
from quarry.retrieval.bm25 import BM25Retriever, TextAnalyzer
from quarry.retrieval.encoder import Encoder
from quarry.types import Document, Qrels, Query, RetrievalSet, Run, SetResult

SECOND = 1 / math.log2(3)


class Ranks:
    """Finds what it was told to, ties by document id descending, and sees what it is shown."""

    name = "ranks"
    uses_encoder = False

    def __init__(self, scores: dict[str, list[float]]) -> None:
        self.scores = scores
        self.titles: list[str] = []
        self.asked_for: list[int] = []

    def retrieve(self, dataset: RetrievalSet, *, top_k: int, encoder: Encoder | None = None) -> Run:
        self.titles = [document.title for document in dataset.corpus]
        self.asked_for.append(top_k)
        run: Run = {}
        for query in dataset.queries:
            pairs = zip(self.scores.get(query.query_id, []), dataset.corpus, strict=False)
            best = sorted(((score, d.document_id) for score, d in pairs), reverse=True)[:top_k]
            run[query.query_id] = {document_id: score for score, document_id in best}
        return run


def one_set(
    *,
    documents: Sequence[str] = ("a", "b", "c", "d"),
    qrels: Qrels,
    name: str = "tiny",
    **of_set: bool | int | None,
) -> BenchmarkSet:
    data = RetrievalSet(
        name=name,
        queries=[Query(query_id=query_id, text=query_id) for query_id in qrels],
        corpus=[Document(document_id=d, text=f"text {d}", title=f"title {d}") for d in documents],
        qrels=qrels,
    )
    return BenchmarkSet(name=name, load=lambda: data, **of_set)  # type: ignore[arg-type]


def evaluated(
    rules: Convention,
    benchmark_set: BenchmarkSet,
    retriever: Ranks | BM25Retriever,
    *,
    measures: Sequence[str] = ("nDCG@2", "Recall@2", "MRR@2"),
    top_k: int = 2,
) -> SetResult:
    evaluator = Evaluator(
        benchmark=Benchmark(name="b", sets=[benchmark_set]),
        measures=measures,
        top_k=top_k,
        convention=rules,
    )
    return evaluator.evaluate(retriever).results[0]


# ties


@pytest.mark.parametrize(
    ("name", "ranking"),
    [
        ("beir", ["d", "c"]),
        ("mteb", ["d", "c"]),
        ("coir", ["d", "c"]),
        ("study", ["d", "c"]),
        ("pyserini", ["a", "b"]),
    ],
)
def test_ties_go_by_document_id_also_where_the_ranking_is_cut(
    name: str, ranking: list[str]
) -> None:
    retriever = Ranks({"q": [1.0, 1.0, 1.0, 1.0]})  # cut in the middle of one tie
    result = evaluated(convention(name), one_set(qrels={"q": {"b": 1, "c": 1, "d": 0}}), retriever)
    assert set(result.run["q"]) == set(ranking)
    # descending: d, c of the relevant b and c; ascending: a, b. Each has one of two at rank 2
    assert result.metrics == pytest.approx(
        {"nDCG@2": SECOND / (1 + SECOND), "Recall@2": 0.5, "MRR@2": 0.5}
    )


@pytest.mark.parametrize(("name", "rank"), [("beir", 3), ("mteb", 3), ("pyserini", 2)])
def test_ties_decide_the_rank_below_a_better_document(name: str, rank: int) -> None:
    retriever = Ranks({"q": [0.0, 1.0, 2.0, 1.0]})  # c, then b and d
    result = evaluated(
        convention(name),
        one_set(qrels={"q": {"b": 1}}),
        retriever,
        measures=["MRR@4", "nDCG@4"],
        top_k=4,
    )
    assert result.metrics == pytest.approx({"MRR@4": 1 / rank, "nDCG@4": 1 / math.log2(rank + 1)})


def test_ids_sort_as_text_in_both_directions() -> None:
    retriever = Ranks({"q": [1.0, 1.0, 1.0]})
    documents = one_set(documents=["d9", "d10", "d1"], qrels={"q": {"d9": 1}})
    for ties, mrr in (("descending", 1.0), ("ascending", 1 / 3)):
        rules = convention("beir", ties=ties)
        result = evaluated(rules, documents, retriever, measures=["MRR"], top_k=3)
        assert result.metrics == {"MRR": pytest.approx(mrr)}


# self matches

COLLIDING: Qrels = {"a": {"b": 1}, "d": {"d": 1}}
"""Query "a" finds itself first and b next; what query "d" is to find is its own document."""
SELF_FIRST = {"a": [4.0, 3.0, 2.0, 1.0], "d": [1.0, 2.0, 3.0, 4.0]}
REMOVED = {"nDCG@2": 0.5, "Recall@2": 0.5, "MRR@2": 0.5}  # a: 1, d: 0
KEPT = {"nDCG@2": (SECOND + 1) / 2, "Recall@2": 1.0, "MRR@2": 0.75}  # a: rank 2, d: rank 1


@pytest.mark.parametrize(
    ("name", "of_set", "expected"),
    [
        ("beir", {}, REMOVED),
        ("coir", {}, REMOVED),
        ("pyserini", {}, REMOVED),
        ("mteb", {}, KEPT),  # unless the task says so
        ("mteb", {"remove_self_match": True}, REMOVED),
        ("study", {"remove_self_match": True}, KEPT),
        # a folder: ids may be equal by accident
        ("beir", {"ids_may_collide": True}, KEPT),
        ("coir", {"ids_may_collide": True}, KEPT),
        ("pyserini", {"ids_may_collide": True}, KEPT),
        ("mteb", {"ids_may_collide": True}, KEPT),
        ("study", {"ids_may_collide": True}, KEPT),
        ("beir", {"ids_may_collide": True, "remove_self_match": True}, REMOVED),
        ("mteb", {"ids_may_collide": True, "remove_self_match": True}, REMOVED),
        ("study", {"ids_may_collide": True, "remove_self_match": True}, KEPT),
    ],
)
def test_self_matches(name: str, of_set: dict[str, bool], expected: dict[str, float]) -> None:
    retriever = Ranks(SELF_FIRST)
    result = evaluated(convention(name), one_set(qrels=COLLIDING, **of_set), retriever)
    assert result.metrics == pytest.approx(expected)
    is_removed = expected is REMOVED
    assert result.convention["self_match"] == ("removed" if is_removed else "kept")
    assert retriever.asked_for == [3 if is_removed else 2]  # one more, and two are left
    assert [len(scores) for scores in result.run.values()] == [2, 2]


def test_a_rule_that_a_set_does_without_is_on_record() -> None:
    folder = one_set(qrels=COLLIDING, ids_may_collide=True)
    record = convention("beir").record(folder)
    assert record["self_match"] == "kept"
    assert record["self_match_rule"] == "always, but ids of this set may be equal by accident"
    assert convention("mteb").record(folder)["self_match_rule"] == "set"


def test_kept_self_matches_of_a_folder_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    benchmark = Benchmark(name="folder", sets=[one_set(qrels=COLLIDING, ids_may_collide=True)])
    evaluator = Evaluator(
        benchmark=benchmark, measures=["MRR@2"], top_k=2, convention=convention("beir")
    )
    with caplog.at_level(logging.INFO):
        for _ in range(3):  # as in training
            evaluator.evaluate(Ranks(SELF_FIRST))
    assert caplog.text.count("found a document with their own id") == 1
    assert "tiny: 2 of 2 queries found a document with their own id" in caplog.text
    assert "benchmark.remove_self_match=true" in caplog.text


def test_a_flag_that_a_convention_overrules_warns(caplog: pytest.LogCaptureFixture) -> None:
    folder = one_set(qrels=COLLIDING, ids_may_collide=True, remove_self_match=True)
    evaluated(convention("study"), folder, Ranks(SELF_FIRST))
    assert "benchmark.remove_self_match=true has no effect: convention=study" in caplog.text


# missing queries


@pytest.mark.parametrize(
    ("name", "mean"),
    [("beir", 0.5), ("mteb", 0.5), ("coir", 0.5), ("pyserini", 0.5), ("study", 1.0)],
)
def test_queries_that_find_nothing(name: str, mean: float) -> None:
    retriever = Ranks({"found": [1.0, 0.5]})
    result = evaluated(
        convention(name), one_set(qrels={"found": {"a": 1}, "missing": {"a": 1}}), retriever
    )
    assert result.metrics == {"nDCG@2": mean, "Recall@2": mean, "MRR@2": mean}
    assert ("missing" in result.per_query["nDCG@2"]) is (name != "study")
    assert result.num_queries == 2


@pytest.mark.parametrize("name", NAMES)
def test_nothing_found_at_all_is_zero_under_every_convention(name: str) -> None:
    result = evaluated(convention(name), one_set(qrels={"q": {"a": 1}}), Ranks({}))
    assert set(result.metrics.values()) == {0.0}


# relevance level

GRADES: Qrels = {"q": {"a": 1, "b": 3, "c": 2}}
"""The ranking is a, b: grade 1, then 3."""


@pytest.mark.parametrize(
    ("name", "level_of_set", "level"),
    [(name, None, 1) for name in NAMES]
    + [("beir", 2, 2), ("pyserini", 2, 2), ("mteb", 2, 1), ("coir", 2, 1), ("study", 2, 1)],
)
def test_relevance_level(name: str, level_of_set: int | None, level: int) -> None:
    retriever = Ranks({"q": [2.0, 1.0]})
    graded = one_set(qrels=GRADES, relevance_level=level_of_set)
    result = evaluated(convention(name), graded, retriever)
    # of level 1: a, b of a, b, c; of level 2: b of b, c
    assert result.metrics["Recall@2"] == pytest.approx(2 / 3 if level == 1 else 1 / 2)
    assert result.metrics["MRR@2"] == (1.0 if level == 1 else 0.5)
    # gains are the grades whatever the level
    assert result.metrics["nDCG@2"] == pytest.approx((1 + 3 * SECOND) / (3 + 2 * SECOND))
    assert result.convention["relevance_level"] == level


def test_a_level_of_zero_is_refused_before_anything_is_encoded() -> None:
    with pytest.raises(UserError, match=r"convention\.relevance_level=0"):
        convention("beir", relevance_level=0)


# capped recall

MANY: Qrels = {"q": {"a": 1, "b": 1, "c": 1, "d": 1}, "few": {"a": 1}}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("set_name", ["trec-covid", "scifact"])
def test_recall_is_capped_on_trec_covid_by_beir_alone(name: str, set_name: str) -> None:
    retriever = Ranks({"q": [4.0, 3.0, 2.0, 1.0], "few": [0.0, 1.0, 2.0, 3.0]})
    result = evaluated(
        convention(name),
        one_set(qrels=MANY, name=set_name),
        retriever,
        measures=["Recall@2", "Recall_cap@2"],
    )
    is_capped = (name, set_name) == ("beir", "trec-covid")
    # q: 2 of 4, or of the 2 that fit; few: 0 of 1
    assert result.metrics["Recall@2"] == (0.5 if is_capped else 0.25)
    assert result.metrics["Recall_cap@2"] == 0.5
    assert result.convention["recall"] == ("capped" if is_capped else "plain")


# titles


@pytest.mark.parametrize(
    ("name", "uses_title_of_set", "uses_title"),
    [
        ("beir", True, True),
        ("beir", False, False),
        ("mteb", False, True),
        ("coir", True, False),
        ("pyserini", False, True),
        ("study", False, True),
    ],
)
def test_titles(name: str, uses_title_of_set: bool, uses_title: bool) -> None:
    retriever = Ranks({"q": [1.0]})
    titled = one_set(qrels={"q": {"a": 1}}, uses_title=uses_title_of_set)
    result = evaluated(convention(name), titled, retriever)
    assert retriever.titles == ([f"title {d}" for d in "abcd"] if uses_title else [""] * 4)
    assert result.convention["title"] == ("joined" if uses_title else "none")


def test_bm25_finds_by_title_only_where_titles_are_joined() -> None:
    retriever = BM25Retriever(tokenizers={"text": TextAnalyzer()})
    titled = one_set(qrels={"title": {"a": 1}})
    assert evaluated(convention("coir"), titled, retriever).run == {"title": {}}
    # "a" is a stop word, which makes document a the shortest; the others tie
    assert evaluated(convention("mteb"), titled, retriever).run["title"].keys() == {"a", "d"}
    assert evaluated(convention("pyserini"), titled, retriever).run["title"].keys() == {"a", "b"}


# the record


@pytest.mark.parametrize("name", NAMES)
def test_each_number_is_stored_with_all_rules_and_they_are_read_back(name: str) -> None:
    rules, graded = convention(name), one_set(qrels=GRADES, relevance_level=2)
    result = evaluated(rules, graded, Ranks({"q": [2.0, 1.0]}))
    assert result.convention["name"] == name
    assert result.convention["top_k"] == 2
    assert recorded_rules(result.convention) == rules.rules_on(graded)


def test_what_is_stored_in_words() -> None:
    graded = one_set(qrels=GRADES, relevance_level=2)
    assert convention("pyserini").record(graded) == {
        "name": "pyserini",
        "title": "joined",
        "self_match": "removed",
        "ties": "document id ascending",
        "missing_queries": "zero",
        "recall": "plain",
        "relevance_level": 2,
        "title_rule": "joined",
        "self_match_rule": "always",
        "capped_recall": [],
        "relevance_level_rule": "set",
    }
