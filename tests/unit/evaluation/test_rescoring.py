"""A run under all conventions: what each rule does by itself, and what a run cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from helpers.conventions import NAMES, convention
from quarry.evaluation.benchmark import BenchmarkSet
from quarry.evaluation.convention import Convention, Rules
from quarry.evaluation.rescoring import Rescored, rescore_run
from quarry.evaluation.rescoring_report import (
    RescoredSet,
    markdown_rescoring,
    rescoring_document,
    terminal_rescoring,
)
from quarry.types import Document, Qrels, Query, RetrievalSet, Run, SetResult

CONVENTIONS = {name: convention(name) for name in NAMES}
QRELS: Qrels = {"a": {"b": 1}, "q": {"b": 1}, "silent": {"c": 1}}
RUN: Run = {"a": {"a": 3.0, "b": 2.0}, "q": {"b": 1.0, "c": 1.0}}
"""Query a finds itself, then what it is to find; q ties it with c; silent has no line."""


def set_of(
    *, titles: bool = False, qrels: Qrels = QRELS, **of_set: bool | int | None
) -> BenchmarkSet:
    data = RetrievalSet(
        name="tiny",
        queries=[Query(query_id=query_id, text=query_id) for query_id in qrels],
        corpus=[Document(document_id=d, text=d, title=d if titles else "") for d in "abc"],
        qrels=qrels,
    )
    return BenchmarkSet(name="tiny", load=lambda: data, **of_set)  # type: ignore[arg-type]


def rescored(
    *,
    run: Run = RUN,
    benchmark_set: BenchmarkSet,
    own: Rules,
    conventions: Mapping[str, Convention] = CONVENTIONS,
    top_k: int = 3,
) -> Rescored:
    return rescore_run(
        run,
        benchmark_set,
        own=own,
        conventions=conventions,
        measures=["MRR@2", "Recall@2"],
        top_k=top_k,
    )


def test_one_rule_at_a_time_by_hand() -> None:
    tiny = set_of()
    found = rescored(benchmark_set=tiny, own=convention("mteb").rules_on(tiny))
    # a: rank 2; q: c before b, so rank 2; silent: nothing
    assert found.as_run == pytest.approx({"MRR@2": 1 / 3, "Recall@2": 2 / 3})
    effects = {(c.rule, c.after): (c.conventions, c.means) for c in found.changes}
    assert effects == {
        ("title", "none"): (("coir",), pytest.approx({"MRR@2": 1 / 3, "Recall@2": 2 / 3})),
        # a: rank 1
        ("self_match", "removed"): (
            ("beir", "coir", "pyserini"),
            pytest.approx({"MRR@2": 0.5, "Recall@2": 2 / 3}),
        ),
        # q: rank 1
        ("ties", "document id ascending"): (
            ("pyserini",),
            pytest.approx({"MRR@2": 0.5, "Recall@2": 2 / 3}),
        ),
        # two queries instead of three
        ("missing_queries", "left_out"): (("study",), pytest.approx({"MRR@2": 0.5, "Recall@2": 1})),
    }
    assert found.by_convention == {
        "mteb": found.as_run,
        "beir": pytest.approx({"MRR@2": 0.5, "Recall@2": 2 / 3}),
        "coir": pytest.approx({"MRR@2": 0.5, "Recall@2": 2 / 3}),
        "pyserini": pytest.approx({"MRR@2": 2 / 3, "Recall@2": 2 / 3}),
        "study": pytest.approx({"MRR@2": 0.5, "Recall@2": 1}),
    }
    assert found.cautions == ()


def test_titles_need_a_new_encoding_and_are_not_guessed() -> None:
    tiny = set_of(titles=True)
    found = rescored(benchmark_set=tiny, own=convention("mteb").rules_on(tiny))
    (change,) = [change for change in found.changes if change.rule == "title"]
    assert change.means is None
    assert "needs a new encoding, convention.title=none" in str(change.obstacle)
    assert found.by_convention["coir"] is None
    assert all(found.by_convention[name] is not None for name in NAMES if name != "coir")

    back = rescored(benchmark_set=tiny, own=convention("coir").rules_on(tiny))
    assert "convention.title=joined" in str(next(c.obstacle for c in back.changes if c.obstacle))
    assert [name for name in NAMES if back.by_convention[name] is not None] == ["coir"]


def test_what_was_removed_cannot_come_back_where_it_could_have_been_found() -> None:
    tiny = set_of(remove_self_match=True)
    own = convention("mteb").rules_on(tiny)
    run: Run = {"a": {"b": 2.0}, "q": {"b": 1.0, "c": 1.0}}
    found = rescored(run=run, benchmark_set=tiny, own=own)
    (change,) = [change for change in found.changes if change.rule == "self_match"]
    assert (change.after, change.conventions, change.means) == ("kept", ("study",), None)
    assert "needs a new search" in str(change.obstacle)
    assert found.by_convention["study"] is None

    apart = set_of(remove_self_match=True, qrels={"q": {"b": 1}})  # no query is a document
    run = {"q": {"b": 1.0, "c": 1.0}}
    harmless = rescored(run=run, benchmark_set=apart, own=own)
    assert harmless.by_convention["study"] == harmless.as_run


def test_level_and_capped_recall_are_rules_like_others() -> None:
    graded = set_of(qrels={"q": {"a": 1, "b": 2, "c": 2}}, relevance_level=2)
    rules = {"mine": convention("beir", capped_recall=["tiny"])}
    own = replace(convention("mteb").rules_on(graded), removes_self_match=True)
    found = rescore_run(
        {"q": {"a": 2.0, "b": 1.0}},
        graded,
        own=own,
        conventions=rules,
        measures=["MRR@2", "Recall@1"],
        top_k=3,
    )
    assert found.as_run == pytest.approx({"MRR@2": 1.0, "Recall@1": 1 / 3})
    assert {c.rule: c.means for c in found.changes} == {
        "recall": {"MRR@2": 1.0, "Recall@1": 1.0},
        "relevance_level": {"MRR@2": 0.5, "Recall@1": 0.0},
    }
    assert found.by_convention == {"mine": {"MRR@2": 0.5, "Recall@1": 0.0}}


def test_where_the_cut_of_the_run_can_matter() -> None:
    tiny = set_of()
    own = convention("mteb").rules_on(tiny)
    found = rescored(benchmark_set=tiny, own=own, top_k=2)
    short, tied = found.cautions
    assert "the ranking of 1 queries has 1 documents" in short
    assert "MRR@2, Recall@2 may be too low" in short
    assert "the ranking of 1 queries may have been cut among tied documents" in tied
    shallow = rescore_run(
        RUN, tiny, own=own, conventions=CONVENTIONS, measures=["MRR@1", "Recall@1"], top_k=2
    )
    assert shallow.cautions == ()


def test_equal_ids_of_a_folder_are_told_and_kept() -> None:
    folder = set_of(ids_may_collide=True)
    found = rescored(benchmark_set=folder, own=convention("beir").rules_on(folder))
    assert "self_match" not in {change.rule for change in found.changes}
    (caution,) = found.cautions
    assert caution.startswith("self_match: 1 queries found a document with their own id")


@pytest.fixture
def sets() -> list[RescoredSet]:
    """One set that all conventions can score but coir, and one that all can and score alike."""
    entries = []
    for name, run, titles in (("one", RUN, True), ("two", {"q": {"b": 2.0}}, False)):
        tiny = set_of(titles=titles, qrels=QRELS if name == "one" else {"q": {"b": 1}})
        rules = convention("mteb")
        found = rescored(run=run, benchmark_set=tiny, own=rules.rules_on(tiny))
        result = SetResult(
            name=name,
            metrics=found.as_run,
            per_query={},
            run={},
            num_queries=1,
            num_documents=3,
            convention=rules.record(tiny),
        )
        entries.append(RescoredSet(result=result, found=found))
    return entries


def test_the_terminal_shows_what_makes_a_difference(sets: list[RescoredSet]) -> None:
    table, lines = terminal_rescoring({"bm25": sets})
    rows = [line.split() for line in table.splitlines()]
    assert rows[0] == ["bm25"]
    assert rows[1] == ["MRR@2"]
    assert rows[2] == ["set", "as_run", *NAMES]
    assert rows[4] == ["one", "0.3333", "0.5000", "0.3333", "-", "0.6667", "0.5000"]
    assert rows[5] == ["two", *["1.0000"] * 6]
    assert rows[6] == ["mean", "0.6667", "0.7500", "0.6667", "-", "0.8333", "0.7500"]
    assert "- self_match kept -> removed (beir, coir, pyserini): MRR@2 0.33333 -> 0.50000" in lines
    assert "- title joined -> none (coir): titles are part of what was encoded" in lines
    assert lines.endswith("two:\n- no rule makes a difference")


def test_the_page_and_the_document_hold_everything(sets: list[RescoredSet]) -> None:
    page = markdown_rescoring({"bm25": sets})
    assert "Embeddings of the corpus" not in page
    half = replace(sets[0], result=replace(sets[0].result, corpus_dtype="float16"))
    assert "in float16, scores summed in float32: dense." in markdown_rescoring({"dense": [half]})
    cut = replace(sets[0], result=replace(sets[0].result, term_tokenizer="words"))
    assert "\n\nTerms of bm25: words.\n" in markdown_rescoring({"bm25": [cut]})
    assert "| one | 0.3333 | 0.5000 | 0.3333 | - | 0.6667 | 0.5000 |" in page
    assert "### Recall@2" in page
    assert "- missing_queries zero -> left_out (study): no difference" in page  # of two
    document = rescoring_document({"bm25": sets})
    found = document["bm25"]["one"]  # type: ignore[index]
    assert found["by_convention"]["coir"] is None
    assert found["run"]["name"] == "mteb"
    assert {change["rule"] for change in found["changes"]} == {
        "title", "self_match", "ties", "missing_queries"
    }  # fmt: skip
