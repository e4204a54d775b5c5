"""Describe public test collections (location, rules, size), and pick them by name."""

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
    """A public test collection: its location, scoring rules and size.

    Attributes:
        name: name in reports, and of its BEIR folder on disk.
        tables: its tables on the hub.
        split: split of the judgements in a BEIR folder.
        num_queries, num_documents, num_positives: see `ExpectedCounts`.
        licence: licence as mteb states it; None: "not specified" there.
        main_measure: the measure of its published numbers.
        content: kind of text in its corpus, for BM25.
        remove_self_match, ids_may_collide, uses_title, relevance_level: see `BenchmarkSet`.
        group: group that it belongs to; its folder may then be GROUP/PART.
        pages: see `BenchmarkSet`.
        note: note for readers of its numbers.
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
        """Return the mean length of a query, and of a document with its title, in characters."""
        return MEAN_CHARACTERS[self.name]

    @property
    def expected(self) -> ExpectedCounts:
        return ExpectedCounts(
            num_queries=self.num_queries,
            num_documents=self.num_documents,
            num_positives=self.num_positives,
        )


def pick(names: Sequence[str], among: Iterable[PublicSet], *, key: str) -> list[PublicSet]:
    """Return the sets of these names, in their order; a group's name stands for all its parts.

    Args:
        names: names of sets and groups.
        among: the sets to choose from.
        key: configuration key of the names, for messages.

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
            f"{key}: there is no {', '.join(map(repr, unknown))} (allowed: {', '.join(by_name)})."
        )
    return [public_set for name in names for public_set in by_name[name]]
