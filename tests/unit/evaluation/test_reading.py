from __future__ import annotations

import pytest

from helpers.conventions import convention
from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.evaluation.reading import read_sets, reading_error
from quarry.types import Document, Query, RetrievalSet


def named_set(*, query: str = "q", document: str = "d", grade: int = 1) -> BenchmarkSet:
    data = RetrievalSet(
        name="inner",
        queries=[Query(query_id=query, text="q")],
        corpus=[Document(document_id=document, text="d")],
        qrels={query: {document: grade}},
    )
    return BenchmarkSet(name=f"{query}/{document}", load=lambda: data)


def fails(reason: str, kind: type[Exception] = UserError) -> BenchmarkSet:
    def load() -> RetrievalSet:
        raise kind(reason)

    return BenchmarkSet(name=reason, load=load)


def read(*sets: BenchmarkSet, needs_all: bool = True) -> None:
    read_sets(Benchmark(name="b", sets=sets), convention("beir"), needs_all=needs_all)


def test_reading_tells_of_ids_that_no_run_file_can_hold() -> None:
    read(named_set())
    bad = [named_set(query="q 1"), named_set(document="d\t1")]
    message = r"inner: query id 'q 1': .*\ninner: document id 'd\\t1': "
    for _ in range(2):  # it is not kept as if it were good
        with pytest.raises(UserError, match=message):
            read(*bad)


def test_where_all_sets_are_needed_every_bad_one_is_told() -> None:
    with pytest.raises(UserError, match="one is bad\ntwo is bad"):
        read(fails("one is bad"), named_set(), fails("two is bad"))
    with pytest.raises(OSError, match="alone"):
        read(fails("alone", OSError), named_set())


def test_an_evaluation_needs_one_set() -> None:
    read(fails("one is bad"), named_set(), fails("is not read", KeyboardInterrupt), needs_all=False)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="one is bad\ntwo is bad"):
        read(fails("one is bad"), fails("two is bad"), needs_all=False)


def test_a_relevance_level_that_no_grade_reaches_is_refused() -> None:
    two = convention("beir", relevance_level=2)
    assert reading_error(named_set(grade=2), two) is None
    error = reading_error(named_set(grade=1), two)
    assert isinstance(error, UserError)
    assert str(error).startswith("convention.relevance_level=2: no grade of q/d reaches it")
    assert str(error).endswith("Fix: convention.relevance_level=1")
