"""Benchmarks are lists of named sets, each read when it is needed and once."""

from __future__ import annotations

import pytest

from quarry.errors import UserError
from quarry.evaluation.benchmark import Benchmark, BenchmarkSet
from quarry.types import RetrievalSet


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
    with pytest.raises(UserError, match="benchmark mine names a, c twice"):
        Benchmark(name="mine", sets=sets)
