"""Group the results of reports into rows for tables and plots: a set, or the mean of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from quarry.errors import UserError
from quarry.types import Report, SetResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A set, or the sets of a group.

    Attributes:
        name: name of the set or group.
        sets: names of the sets whose mean the row shows, in order.
        is_group: whether the row is a group; a group may have one set only.
    """

    name: str
    sets: tuple[str, ...]
    is_group: bool = False

    @property
    def label(self) -> str:
        """Return the name; for a group, also the number of its sets."""
        return f"{self.name} (mean of {len(self.sets)})" if self.is_group else self.name


def rows_of(reports: Sequence[Report]) -> list[Row]:
    """Return the sets and groups of all reports, in order of first appearance.

    A set that failed everywhere comes last, on a row of its own: its group is unknown.
    """
    groups: dict[str, str | None] = {}
    for report in reports:
        for result in report.results:
            groups.setdefault(result.name, result.group)
    for report in reports:
        for name in report.failures:
            groups.setdefault(name, None)
    members: dict[tuple[str, bool], list[str]] = {}
    for name, group in groups.items():
        members.setdefault((name, False) if group is None else (group, True), []).append(name)
    return [
        Row(name=name, sets=tuple(sets), is_group=is_group)
        for (name, is_group), sets in members.items()
    ]


def members_of(rows: Sequence[Row]) -> list[Row]:
    """Return the sets of the groups among `rows`, each as a row of its own."""
    return [Row(name=name, sets=(name,)) for row in rows if row.is_group for name in row.sets]


def value_of(report: Report, row: Row, measure: str) -> float | None:
    """Return a retriever's value on a row; None unless every set of the row was measured."""
    values = [_metric(report, name, measure) for name in row.sets]
    present = [value for value in values if value is not None]
    return fmean(present) if len(present) == len(values) else None


def interval_of(report: Report, row: Row, measure: str) -> tuple[float, float] | None:
    """Return the confidence interval of a set's value; None for a group."""
    result = None if row.is_group else result_of(report, row.name)
    return None if result is None else result.intervals.get(measure)


def has_failed(report: Report, row: Row) -> bool:
    """Return whether a set of the row failed for this retriever."""
    return any(name in report.failures for name in row.sets)


def failed_rows(reports: Sequence[Report], rows: Sequence[Row]) -> list[Row]:
    """Return the rows where any retriever failed; means leave them out for all retrievers."""
    return [row for row in rows if any(has_failed(report, row) for report in reports)]


def mean_of(report: Report, rows: Sequence[Row], measure: str) -> float | None:
    """Return the unweighted mean over `rows`; None unless the retriever was measured on each."""
    values = [value_of(report, row, measure) for row in rows]
    present = [value for value in values if value is not None]
    return fmean(present) if present and len(present) == len(values) else None


def mean_label(failed: Sequence[Row]) -> str:
    """Return the name of the row of means, which names the rows that they leave out."""
    if not failed:
        return "mean"
    names = ", ".join(row.name for row in failed)
    return f"mean without {names if len(failed) < 3 else f'{len(failed)} that failed'}"


def result_of(report: Report, set_name: str) -> SetResult | None:
    """Return a report's result on a set; None if it has none."""
    return next((result for result in report.results if result.name == set_name), None)


def shown_measures(reports: Sequence[Report], measures: Sequence[str]) -> list[str]:
    """Return those of `measures` that were computed on any set; all of them if every set failed.

    Raises:
        UserError: none was computed.
    """
    computed = {m for report in reports for result in report.results for m in result.metrics}
    if not computed and any(report.failures for report in reports):
        return list(measures)
    shown = [measure for measure in measures if measure in computed]
    if not shown:
        raise UserError(
            f"None of the measures {', '.join(measures)} was computed (there are: "
            f"{', '.join(sorted(computed)) or 'none'}). Fix: name at least one of those."
        )
    return shown


def _metric(report: Report, set_name: str, measure: str) -> float | None:
    result = result_of(report, set_name)
    return None if result is None else result.metrics.get(measure)
