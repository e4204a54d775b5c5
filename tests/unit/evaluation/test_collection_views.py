"""Views change what a corpus shows, at any index and slice, and copy nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quarry.evaluation.collection_views import AscendingTies, CorpusView, without_titles
from quarry.types import Document, Query, RetrievalSet

CORPUS = [Document(document_id=d, text=d.upper(), title=f"t{d}") for d in ("b", "c", "a", "d")]
DATA = RetrievalSet(
    name="x", queries=[Query(query_id="q", text="q")], corpus=CORPUS, qrels={"q": {"a": 1}}
)


def test_titles_are_dropped_wherever_one_looks_and_only_there() -> None:
    view = without_titles(DATA).corpus
    bare = [Document(document_id=d.document_id, text=d.text) for d in CORPUS]
    assert list(view) == [view[row] for row in range(4)] == view[:] == bare
    assert view[1:3] == bare[1:3]
    assert view[::-2] == bare[::-2]
    assert view[-1] == bare[-1]
    assert len(view) == 4
    assert DATA.corpus[0].title == "tb"
    with pytest.raises(IndexError):
        view[4]


def test_documents_are_made_when_they_are_asked_for() -> None:
    made: list[int] = []

    def change(row: int, document: Document) -> Document:
        made.append(row)
        return document

    view = CorpusView(corpus=CORPUS, change=change)
    assert made == []
    assert view[2].document_id == "a"
    assert made == [2]


def test_names_sort_the_other_way_round_and_are_taken_back() -> None:
    view = AscendingTies(DATA)
    names = {d.text: d.document_id for d in view.data.corpus}
    assert sorted(names, key=names.__getitem__, reverse=True) == ["A", "B", "C", "D"]
    run = {"q": {names["D"]: 1.0, names["A"]: 0.5}, "empty": {}}
    assert view.restore(run) == {"q": {"d": 1.0, "a": 0.5}, "empty": {}}


def test_self_matches_go_by_the_new_names() -> None:
    own = {"a": "a", "gone": "gone"}  # no document of the corpus is called so
    view = AscendingTies(replace(DATA, self_matches=own))
    names = {d.text: d.document_id for d in view.data.corpus}
    assert view.data.self_matches == {"a": names["A"]}
