"""Which queries are shown, what was found for them, and that a table of them stays small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quarry.data.beir import read_corpus
from quarry.evaluation.examples import NUM_CHARACTERS, Example, examples_of
from quarry.types import Document, Query, RetrievalSet, Run

DOCUMENTS = [
    Document(document_id="a", text="apple", title="Fruit"),
    Document(document_id="b", text="bear"),
    Document(document_id="c", text="x" * 1000),
    Document(document_id="d", text="dog"),
]
DATA = RetrievalSet(
    name="stored under this name",
    queries=[Query(query_id=f"q{i}", text=f"query  {i}") for i in range(10)],
    corpus=DOCUMENTS,
    qrels={f"q{i}": {"d": 1, "b": 0, "missing": 2} for i in range(10)},
)
RUN: Run = {"q0": {"a": 1.0, "d": 0.25, "c": 0.5, "b": 0.125}, "q9": {"b": 1.0}}


def shown(data: RetrievalSet = DATA, num_examples: int = 2) -> list[Example]:
    return examples_of(data, RUN, set_name="s", num_examples=num_examples)


def test_a_query_with_its_best_documents() -> None:
    first, last = shown()
    assert (first.set_name, first.query_id, first.text) == ("s", "q0", "query 0")
    assert first.first_relevant == 3
    found = [(d.document_id, d.score, d.is_relevant) for d in first.documents]
    assert found == [("a", 1.0, False), ("c", 0.5, False), ("d", 0.25, True)]
    assert first.documents[0].text == "Fruit apple"
    assert len(first.documents[1].text) == NUM_CHARACTERS
    assert first.documents[1].text.endswith("x…")
    assert (last.query_id, last.first_relevant) == ("q9", None)
    assert [d.document_id for d in last.documents] == ["b"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, []), (1, ["q0"]), (2, ["q0", "q9"]), (4, ["q0", "q3", "q6", "q9"]), (99, range(10))],
)
def test_queries_are_evenly_spaced(number: int, expected: list[str]) -> None:
    names = [f"q{name}" if isinstance(name, int) else name for name in expected]
    assert [example.query_id for example in shown(num_examples=number)] == names


def test_a_query_that_found_nothing() -> None:
    (example,) = examples_of(DATA, {"q0": {}}, set_name="s", num_examples=1)
    assert example.documents == ()
    assert example.first_relevant is None


def test_a_memory_mapped_corpus_gives_the_same(tmp_path: Path) -> None:
    lines = [{"_id": d.document_id, "title": d.title, "text": d.text} for d in DOCUMENTS]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = read_corpus(path=tmp_path / "corpus.jsonl", cache_dir=tmp_path / "cache")
    mapped = RetrievalSet(name="m", queries=DATA.queries, corpus=corpus, qrels=DATA.qrels)
    assert shown(mapped) == shown()
    (example,) = examples_of(mapped, {"q0": {"gone": 1.0}}, set_name="s", num_examples=1)
    assert example.documents[0].text == ""
