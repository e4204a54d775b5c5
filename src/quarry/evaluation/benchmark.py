"""A benchmark is data: named test collections, and the rules that each is scored under."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quarry.errors import UserError
from quarry.types import RetrievalSet


@dataclass(kw_only=True)
class BenchmarkSet:
    """One test collection, loaded when it is first needed and kept (it is memory-mapped).

    Attributes:
        name: as in metric names and file names.
        load: reads the collection.
        remove_self_match: drop a document whose id equals the query's. Right where queries are
            documents of the corpus (ArguAna, Quora), wrong where ids collide by accident.
        group: what the collection is a part of, where parts count as one in means.
    """

    name: str
    load: Callable[[], RetrievalSet]
    remove_self_match: bool = False
    group: str | None = None
    _loaded: RetrievalSet | None = field(default=None, init=False, repr=False)

    @property
    def data(self) -> RetrievalSet:
        if self._loaded is None:
            self._loaded = self.load()
        return self._loaded


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A named list of collections.

    Raises:
        UserError: there are none, or two share a name.
    """

    name: str
    sets: Sequence[BenchmarkSet]

    def __post_init__(self) -> None:
        names = [benchmark_set.name for benchmark_set in self.sets]
        if not names:
            raise UserError(f"The benchmark {self.name} has no sets: there is nothing to evaluate.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(
                f"The benchmark {self.name} names {', '.join(twice)} twice; each set once, please."
            )


def no_benchmark() -> None:
    """Nothing to evaluate on: training alone (conf/benchmark/none.yaml)."""
