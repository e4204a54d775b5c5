"""What is known of a public test collection, and how some of them are picked by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quarry.data.hub_set import HubTables
from quarry.errors import UserError
from quarry.evaluation.benchmark import ExpectedCounts
from quarry.evaluation.benchmarks.mean_characters import MEAN_CHARACTERS
from quarry.types import Content


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicSet:
    """A public test collection as data: where it is, its rules, its size.

    Attributes:
        name: as in reports, and of its BEIR folder on disk.
        tables: where it is on the hub.
        split: of the judgements, in a BEIR folder.
        num_queries, num_documents, num_positives: see `ExpectedCounts`.
        licence: as mteb states it; None: "not specified" there.
        main_measure: what its published numbers are.
        content: what its corpus holds, for BM25.
        remove_self_match, ids_may_collide, uses_title, relevance_level: see `BenchmarkSet`.
        group: what it is a part of; its folder may be GROUP/PART then.
        pages: a name that sets have in common whose documents are nearly the same; see
            `BenchmarkSet`.
        note: what a reader of its numbers should know.
    """

    name: str
    tables: HubTables
    split: str
    num_queries: int
    num_documents: int
    num_positives: int
    licence: str | None
    main_measure: str = "nDCG@10"
    content: Content = "text"
    remove_self_match: bool = False
    ids_may_collide: bool = False
    uses_title: bool = True
    relevance_level: int | None = None
    group: str | None = None
    pages: str | None = None
    note: str = ""

    @property
    def mean_characters(self) -> tuple[float, float]:
        """Of a query and of a document with its title."""
        return MEAN_CHARACTERS[self.name]

    @property
    def expected(self) -> ExpectedCounts:
        return ExpectedCounts(
            num_queries=self.num_queries,
            num_documents=self.num_documents,
            num_positives=self.num_positives,
        )


def pick(names: Sequence[str], among: Iterable[PublicSet], *, key: str) -> list[PublicSet]:
    """The sets of these names, in their order; the name of a group stands for all its parts.

    Args:
        names: of sets and groups.
        among: where to look.
        key: what the names come from, for messages.

    Raises:
        UserError: a name is neither a set nor a group.
    """
    by_name: dict[str, list[PublicSet]] = {}
    for public_set in among:
        by_name.setdefault(public_set.name, []).append(public_set)
        if public_set.group is not None:
            by_name.setdefault(public_set.group, []).append(public_set)
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise UserError(
            f"{key}: there is no {', '.join(map(repr, unknown))}; choose of {', '.join(by_name)}."
        )
    return [public_set for name in names for public_set in by_name[name]]
