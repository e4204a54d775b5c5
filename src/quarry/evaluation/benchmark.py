"""Define a benchmark: named test collections with their scoring rules and expected sizes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field

from quarry.errors import UserError
from quarry.metrics.run_files import check_ids
from quarry.runtime.hub_files import HubFiles
from quarry.types import RetrievalSet


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedCounts:
    """Known size of a collection, checked after loading.

    Attributes:
        num_queries: judged queries.
        num_documents: documents of the corpus.
        num_positives: judgements of a grade above 0.
    """

    num_queries: int
    num_documents: int
    num_positives: int

    @classmethod
    def of(cls, data: RetrievalSet) -> ExpectedCounts:
        """Count the queries, documents and positives of a loaded collection."""
        return cls(
            num_queries=len(data.queries),
            num_documents=len(data.corpus),
            num_positives=sum(
                grade > 0 for judged in data.qrels.values() for grade in judged.values()
            ),
        )


@dataclass(kw_only=True)
class BenchmarkSet:
    """One test collection, loaded on first use and then held (its corpus is memory-mapped).

    Attributes:
        name: name in metrics and file names.
        load: reads the collection.
        remove_self_match: drop a document whose id equals the query's, under conventions that
            leave it to the set. For sets whose queries are documents (ArguAna, Quora).
        ids_may_collide: it is unknown whether equal ids mean equal texts, so a convention that
            always removes self matches does so only with `remove_self_match`.
        uses_title: documents are title and text, under conventions that leave it to the set.
        relevance_level: the lowest relevant grade, under conventions that leave it to the set;
            None: 1.
        licence: licence of the data, as its publisher or distributor states it; None: unknown.
        expected: counts that are checked after loading; None: not checked.
        group: group that the collection belongs to; a group counts as one set in means.
        corpus: identifies the source of the documents; sets with the same one search the same
            documents. None: unknown.
        mean_characters: published mean length of a query, and of a document with its title, for
            task=plan. None: unknown.
        pages: sets with the same value have nearly the same documents, so the second one finds
            their embeddings in the store. None: none are known.
        hub_files: files that `load` reads from the hub.
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
        """Load the collection on first use, and return it.

        Raises:
            UserError: `load` fails, a count differs from the expected one, or a run file cannot
                hold an id.
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
                f"{self.name}: {'; '.join(wrong)}. The data are incomplete, or another version of "
                "the set, and numbers would not be comparable. Fix: fetch it again, or "
                "benchmark.check_counts=false to evaluate on what is there."
            )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Named list of test collections.

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
                f"Benchmark {self.name} names {', '.join(twice)} twice. Fix: name each set once."
            )


def no_benchmark(**ignored: object) -> None:
    """Return no benchmark: training without evaluation (conf/benchmark/none.yaml).

    Args:
        ignored: what a study or an experiment sets for its benchmark, which a dry run replaces.
    """
