"""What tables and plots show as one: a set, or a group of sets that counts as one with its mean."""

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
        name: of the set or group.
        sets: whose mean it shows, in order.
        is_group: whether the name is a group's; a group may have one set only.
    """

    name: str
    sets: tuple[str, ...]
    is_group: bool = False

    @property
    def label(self) -> str:
        """The name; of a group also of how many sets its value is the mean."""
        return f"{self.name} (mean of {len(self.sets)})" if self.is_group else self.name


def rows_of(reports: Sequence[Report]) -> list[Row]:
    """The sets and groups of all reports, in the order in which they first appear.

    A set that failed everywhere comes last, on a row of its own: nobody says what group it is of.
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
    """The sets of the groups among `rows`, each on a row of its own."""
    return [Row(name=name, sets=(name,)) for row in rows if row.is_group for name in row.sets]


def value_of(report: Report, row: Row, measure: str) -> float | None:
    """What a retriever reached there, None unless it was measured on every set of the row."""
    values = [_metric(report, name, measure) for name in row.sets]
    present = [value for value in values if value is not None]
    return fmean(present) if len(present) == len(values) else None


def interval_of(report: Report, row: Row, measure: str) -> tuple[float, float] | None:
    """The interval of a set's value; a group has none."""
    result = None if row.is_group else result_of(report, row.name)
    return None if result is None else result.intervals.get(measure)


def has_failed(report: Report, row: Row) -> bool:
    """Whether a set of the row failed for this retriever."""
    return any(name in report.failures for name in row.sets)


def failed_rows(reports: Sequence[Report], rows: Sequence[Row]) -> list[Row]:
    """Those where a retriever failed; no mean counts them, so that all means are of the same."""
    return [row for row in rows if any(has_failed(report, row) for report in reports)]


def mean_of(report: Report, rows: Sequence[Row], measure: str) -> float | None:
    """Unweighted mean over `rows`, None unless the retriever was measured on each."""
    values = [value_of(report, row, measure) for row in rows]
    present = [value for value in values if value is not None]
    return fmean(present) if present and len(present) == len(values) else None


def mean_label(failed: Sequence[Row]) -> str:
    """The name of the row of means, which says what they leave out."""
    if not failed:
        return "mean"
    names = ", ".join(row.name for row in failed)
    return f"mean without {names if len(failed) < 3 else f'{len(failed)} that failed'}"


def result_of(report: Report, set_name: str) -> SetResult | None:
    """What a report says of a set, None where it says nothing."""
    return next((result for result in report.results if result.name == set_name), None)


def shown_measures(reports: Sequence[Report], measures: Sequence[str]) -> list[str]:
    """Those of `measures` that were computed at all; all of them if every set failed.

    Raises:
        UserError: none was, of any set.
    """
    computed = {m for report in reports for result in report.results for m in result.metrics}
    if not computed and any(report.failures for report in reports):
        return list(measures)
    shown = [measure for measure in measures if measure in computed]
    if not shown:
        raise UserError(
            f"None of the measures {', '.join(measures)} was computed (there are: "
            f"{', '.join(sorted(computed)) or 'none'}). A report shows at least one: name one of "
            "those."
        )
    return shown


def _metric(report: Report, set_name: str, measure: str) -> float | None:
    result = result_of(report, set_name)
    return None if result is None else result.metrics.get(measure)
