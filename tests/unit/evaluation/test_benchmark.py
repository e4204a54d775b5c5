"""Benchmarks are lists of named sets, each read when it is needed and once."""

from __future__ import annotations

import pytest

from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet, ExpectedCounts
from quarry.types import Document, Query, RetrievalSet


def empty_set() -> RetrievalSet:
    return RetrievalSet(name="inner", queries=[], corpus=[], qrels={})


def test_a_set_is_read_when_needed_and_once() -> None:
    reads: list[int] = []

    def load() -> RetrievalSet:
        reads.append(1)
        return empty_set()

    benchmark_set = BenchmarkSet(name="x", load=load)
    Benchmark(name="b", sets=[benchmark_set])
    assert not reads
    assert benchmark_set.data is benchmark_set.data
    assert len(reads) == 1


def test_no_sets_are_refused() -> None:
    with pytest.raises(UserError, match="benchmark empty has no sets"):
        Benchmark(name="empty", sets=[])


def test_two_sets_of_one_name_are_refused() -> None:
    sets = [BenchmarkSet(name=name, load=empty_set) for name in ("a", "b", "a", "c", "c")]
    with pytest.raises(UserError, match="mine names a, c twice"):
        Benchmark(name="mine", sets=sets)


def counted_set(**expected: int) -> BenchmarkSet:
    data = RetrievalSet(
        name="inner",
        queries=[Query(query_id="q", text="q")],
        corpus=[Document(document_id=name, text=name) for name in "abc"],
        qrels={"q": {"a": 2, "b": 1, "c": 0}},
    )
    counts = {"num_queries": 1, "num_documents": 3, "num_positives": 2} | expected
    return BenchmarkSet(name="x", load=lambda: data, expected=ExpectedCounts(**counts))


def test_counts_that_are_as_expected_pass() -> None:
    assert len(counted_set().data.corpus) == 3


def test_every_wrong_count_is_named_with_what_was_found() -> None:
    wrong = counted_set(num_documents=1003, num_positives=3)
    message = r"x: 1,003 documents expected, 3 found; 3 positives expected, 2 found\..*check_counts"
    for _ in range(2):  # it is not kept as if it were good
        with pytest.raises(UserError, match=message):
            _ = wrong.data
