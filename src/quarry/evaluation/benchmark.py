"""A benchmark is data: named test collections, and the rules that each is scored under."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field

from quarry.errors import UserError
from quarry.metrics.run_files import check_ids
from quarry.runtime.hub_files import HubFiles
from quarry.types import RetrievalSet


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedCounts:
    """How large a collection is known to be.

    Attributes:
        num_queries: queries that are judged.
        num_documents: documents of the corpus.
        num_positives: judgements of a grade above 0.
    """

    num_queries: int
    num_documents: int
    num_positives: int

    @classmethod
    def of(cls, data: RetrievalSet) -> ExpectedCounts:
        """What a collection that was loaded has."""
        return cls(
            num_queries=len(data.queries),
            num_documents=len(data.corpus),
            num_positives=sum(
                grade > 0 for judged in data.qrels.values() for grade in judged.values()
            ),
        )


@dataclass(kw_only=True)
class BenchmarkSet:
    """One test collection, loaded when it is first needed and kept (it is memory-mapped).

    Attributes:
        name: as in metric names and file names.
        load: reads the collection.
        remove_self_match: drop a document whose id equals the query's, under conventions that
            leave it to the set. Right where queries are documents of the corpus (ArguAna, Quora).
        ids_may_collide: nobody knows whether equal ids mean equal texts, so a convention that
            always removes self matches does so only with `remove_self_match`.
        uses_title: documents are title and text, under conventions that leave it to the set.
        relevance_level: the lowest grade that is relevant, under conventions that leave it to the
            set; None: 1.
        licence: of the data, as its publisher or distributor states it; None: not known.
        expected: counts that are checked after loading; None: not checked.
        group: what the collection is a part of, where parts count as one in means.
        corpus: where its documents come from; sets of one corpus search the same ones. None: not
            known.
        mean_characters: of a query and of a document with its title, as published, for plans.
            None: not known.
        pages: sets with the same name here have nearly the same documents: when the second one is
            encoded they are in the embedding store. None: not known of any.
        hub_files: what `load` reads from the hub.
    """

    name: str
    load: Callable[[], RetrievalSet]
    remove_self_match: bool = False
    ids_may_collide: bool = False
    uses_title: bool = True
    relevance_level: int | None = None
    licence: str | None = None
    expected: ExpectedCounts | None = None
    group: str | None = None
    corpus: Hashable | None = None
    mean_characters: tuple[float, float] | None = None
    pages: str | None = None
    hub_files: tuple[HubFiles, ...] = ()
    _loaded: RetrievalSet | None = field(default=None, init=False, repr=False)

    @property
    def data(self) -> RetrievalSet:
        """The collection.

        Raises:
            UserError: what `load` raises, a count is not the expected one, or an id is none that a
                run file can hold.
        """
        if self._loaded is None:
            loaded = self.load()
            self._check_counts(loaded)
            check_ids(f"{loaded.name}: query id", (each.query_id for each in loaded.queries))
            check_ids(f"{loaded.name}: document id", (each.document_id for each in loaded.corpus))
            self._loaded = loaded
        return self._loaded

    def _check_counts(self, data: RetrievalSet) -> None:
        if self.expected is None:
            return
        expected, found = asdict(self.expected), asdict(ExpectedCounts.of(data))
        wrong = [
            f"{expected[key]:,} {key.removeprefix('num_')} expected, {found[key]:,} found"
            for key in expected
            if expected[key] != found[key]
        ]
        if wrong:
            raise UserError(
                f"{self.name}: {'; '.join(wrong)}. The data are cut, or another version of the "
                "set, and numbers would not be comparable: fetch it anew, or set "
                "benchmark.check_counts=false to go on with what is there."
            )


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

    def load(self) -> None:
        """Reads every set now, for where a set that turns out bad later would cost dearly.

        Raises:
            UserError: some cannot be used; the message has the reason of each.
        """
        reasons = []
        for benchmark_set in self.sets:
            try:
                _ = benchmark_set.data
            except UserError as error:
                reasons.append(str(error))
        if reasons:
            raise UserError("\n".join(reasons))


def no_benchmark() -> None:
    """Nothing to evaluate on: training alone (conf/benchmark/none.yaml)."""
