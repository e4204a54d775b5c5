"""Assign test collections to tables (suites) and to columns of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quarry.errors import UserError
from quarry.evaluation.benchmarks.beir_sets import BEIR_SETS
from quarry.evaluation.benchmarks.catalogue import PublicSet
from quarry.evaluation.benchmarks.coir_sets import COIR_SETS
from quarry.evaluation.benchmarks.msmarco_sets import MSMARCO_SETS
from quarry.evaluation.rows import Row
from quarry.study_report.entries import Entry


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Sets that are shown in one table.

    Attributes:
        key: key for file names.
        title: title for readers.
        sets: its public sets, in the order of reports; empty for the suite of all other sets.
    """

    key: str
    title: str
    sets: tuple[PublicSet, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Column:
    """Column of a table: one measure on a set, or its mean over the sets of a group."""

    row: Row
    measure: str


BEIR = Suite(key="beir", title="BEIR", sets=BEIR_SETS)
COIR = Suite(key="coir", title="CoIR", sets=COIR_SETS)
MSMARCO = Suite(key="msmarco", title="MS MARCO and TREC DL", sets=MSMARCO_SETS)
OTHER = Suite(key="other", title="other sets")
SUITES = (BEIR, COIR, MSMARCO, OTHER)


@dataclass(frozen=True, kw_only=True)
class StudySet:
    """A test collection that runs have measured.

    Attributes:
        name: name of the collection.
        group: group that it belongs to; None: none.
        suite: suite that shows it. A truncated or different version of a public set is shown
            among the other sets.
        main_measure: its usual measure; for other sets the first measure of a run.
    """

    name: str
    group: str | None
    suite: Suite
    main_measure: str


def study_sets(entries: Sequence[Entry]) -> list[StudySet]:
    """Return all sets of all entries: public ones in their usual order, then others.

    Sets without any result are assumed to be the public ones of their name.
    """
    public = {one.name: (suite, one) for suite in SUITES for one in suite.sets}
    found: dict[str, StudySet] = {}
    for entry in entries:
        for name, group, is_public in _seen(entry, public):
            if name in found and (not is_public or found[name].suite is OTHER):
                continue
            if is_public:
                suite, one = public[name]
                found[name] = StudySet(
                    name=name, group=one.group, suite=suite, main_measure=one.main_measure
                )
            else:
                measure = _main_measure(entry)
                found[name] = StudySet(name=name, group=group, suite=OTHER, main_measure=measure)
    order = {name: index for index, name in enumerate(public)}
    return sorted(found.values(), key=lambda each: order.get(each.name, len(order)))


def chosen_sets(sets: Sequence[StudySet], names: Sequence[str] | None) -> list[StudySet]:
    """Return the sets whose name or group is in `names`, in that order; all for None.

    Raises:
        UserError: a name does not exist.
    """
    if names is None:
        return list(sets)
    unknown = [name for name in names if not any(name in (s.name, s.group) for s in sets)]
    if unknown:
        known = dict.fromkeys(name for s in sets for name in (s.group, s.name) if name)
        raise UserError(
            f"task.sets: no run has measured {', '.join(unknown)} (there are {', '.join(known)})."
        )
    found = {s.name: s for name in names for s in sets if name in (s.name, s.group)}
    return list(found.values())


def columns_of(sets: Sequence[StudySet], measure: str | None) -> list[Column]:
    """Return a column for each set or group, by `measure` or, for None, by its main measure."""
    members: dict[tuple[str, bool], list[StudySet]] = {}
    for each in sets:
        key = (each.name, False) if each.group is None else (each.group, True)
        members.setdefault(key, []).append(each)
    columns = []
    for (name, is_group), parts in members.items():
        row = Row(name=name, sets=tuple(each.name for each in parts), is_group=is_group)
        columns.append(Column(row=row, measure=measure or parts[0].main_measure))
    return columns


def _seen(
    entry: Entry, public: Mapping[str, tuple[Suite, PublicSet]]
) -> Iterable[tuple[str, str | None, bool]]:
    """Yield (name, group, whether it is the public set, by its size) of an entry's sets."""
    for results in entry.results.values():
        for result in results.values():
            one = public[result.name][1] if result.name in public else None
            is_public = (
                one is not None
                and result.num_queries == one.num_queries
                # judgements alone have no documents
                and result.num_documents in (0, one.num_documents)
            )
            yield result.name, result.group, is_public
    for failures in entry.failures.values():
        for name in failures:
            yield name, None, name in public


def _main_measure(entry: Entry) -> str:
    measures = entry.members[0].record.measures
    return measures[0] if measures else "nDCG@10"
