"""Build the tables of a study: models by sets, with averages, comparisons and published rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from quarry.errors import UserError
from quarry.evaluation.significance_test import SignificanceTest
from quarry.study_report.cells import Cell, average_of, cell_of
from quarry.study_report.comparisons import Comparison, Place, compared
from quarry.study_report.conflicts import refuse_conflicts
from quarry.study_report.entries import Entry
from quarry.study_report.published_rows import PublishedRow, PublishedValue, fitting
from quarry.study_report.settings import WITHOUT_MODEL, Stage
from quarry.study_report.suites import (
    SUITES,
    Column,
    StudySet,
    Suite,
    chosen_sets,
    columns_of,
    study_sets,
)

STAGE_TITLES: Mapping[Stage, str] = {
    "baseline": "Baselines",
    "given": "Rankings given",
    "zero_shot": "Zero-shot",
    "supervised": "Supervised",
}
DEFAULT_BASE = "qwen-base"


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """Table of models by sets, with one measure a column.

    Attributes:
        key: key for file names.
        stage, suite: stage of its models, and suite of its sets.
        columns: sets and groups.
        has_average: whether the last cell of each row is the mean over the columns; all columns
            then have the same measure.
        entries: the rows: baselines, given rankings, models.
        cells: [rows][columns, and the average].
        base: the row that the others are compared with; None: there is none.
        comparisons: (row, column) -> significance test against the base.
        test: settings of the tests.
        published: published rows, with a number or None for each column and the average.
    """

    key: str
    stage: Stage
    suite: Suite
    columns: tuple[Column, ...]
    has_average: bool
    entries: tuple[Entry, ...]
    cells: tuple[tuple[Cell, ...], ...]
    base: Entry | None
    comparisons: Mapping[Place, Comparison]
    test: SignificanceTest
    published: tuple[tuple[PublishedRow, tuple[PublishedValue | None, ...]], ...]

    @property
    def title(self) -> str:
        return f"{STAGE_TITLES[self.stage]}, {self.suite.title}"

    @property
    def measures(self) -> list[str]:
        return list(dict.fromkeys(column.measure for column in self.columns))

    @property
    def models(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.stage not in WITHOUT_MODEL]

    def row(self, entry: Entry) -> tuple[Cell, ...]:
        return self.cells[self.entries.index(entry)]

    def difference(self, row: int, column: int) -> float | None:
        """Return a cell's difference to the base; None without a base or if a value is missing."""
        if self.base is None or self.entries[row] is self.base:
            return None
        ours = self.cells[row][column].value
        theirs = self.row(self.base)[column].value
        return None if ours is None or theirs is None else ours - theirs


def study_tables(
    entries: Sequence[Entry],
    *,
    published: Sequence[PublishedRow],
    base: str | None,
    measures: Sequence[str] | None,
    sets: Sequence[str] | None,
    test: SignificanceTest,
) -> list[StudyTable]:
    """Build zero-shot and supervised tables of each suite, both with baselines and given rankings.

    Args:
        published: published rows.
        base: label of the row that others are compared with; None: `qwen-base` if there is such a
            row, else the first model.
        measures: make a table for each; None: one table by the main measure of each set.
        sets: names of sets and groups to show, in this order; None: all.
        test: settings of the significance tests.

    Raises:
        UserError: numbers of a column are not comparable (all conflicts are named), or no table
            has a row `base`.
    """
    chosen = chosen_sets(study_sets(entries), sets)
    plans = list(_plans(entries, chosen, measures))
    refuse_conflicts(entries, [column for plan in plans for column in plan.columns])
    made = [_table(entries, plan, base=base, test=test, published=published) for plan in plans]
    tables = [table for table in made if table is not None]
    if base is not None and not any(table.base for table in tables):
        labels = dict.fromkeys(entry.label for table in tables for entry in table.entries)
        raise UserError(
            f"task.base={base}: no table has exactly one row of that name (there are "
            f"{', '.join(map(repr, labels))})."
        )
    return tables


@dataclass(frozen=True, kw_only=True)
class _Plan:
    key: str
    suite: Suite
    stage: Stage
    columns: tuple[Column, ...]
    is_main: bool


def _plans(
    entries: Sequence[Entry], chosen: Sequence[StudySet], measures: Sequence[str] | None
) -> Iterator[_Plan]:
    for suite in SUITES:
        own = [each for each in chosen if each.suite is suite]
        for stage in _stages(entries, [each.name for each in own]):
            for measure in [None] if measures is None else measures:
                columns = columns_of(own, measure)
                suffix = "" if measure is None else "_" + re.sub(r"\W+", "_", measure.lower())
                yield _Plan(
                    key=f"{stage}_{suite.key}{suffix}",
                    suite=suite,
                    stage=stage,
                    columns=tuple(columns),
                    is_main=measure is None,
                )


def _stages(entries: Sequence[Entry], sets: Sequence[str]) -> list[Stage]:
    """Return the stages to make tables of: those with models, else given rankings or baselines."""
    found = {entry.stage for entry in entries if any(_knows(entry, name) for name in sets)}
    stages: list[Stage] = [s for s in ("zero_shot", "supervised") if s in found]
    if stages:
        return stages
    return ["given"] if "given" in found else ["baseline"] if "baseline" in found else []


def _knows(entry: Entry, set_name: str) -> bool:
    """Return whether an entry has a result or a failure on a set."""
    return any(set_name in part for part in (*entry.results.values(), *entry.failures.values()))


def _is_row(entry: Entry, columns: Sequence[Column]) -> bool:
    """Return whether an entry has, or was configured to have, a value in one of the columns."""
    if any(entry.results.values()) or any(entry.failures.values()):
        return any(_knows(entry, name) for column in columns for name in column.row.sets)
    shown = {name for column in columns for name in (column.row.name, *column.row.sets)}
    named = entry.members[0].record.benchmark_sets
    return not named or bool(shown & set(named))


def _shown_columns(entries: Sequence[Entry], columns: Sequence[Column], *, is_main: bool) -> list:
    """Return the columns that some entry was measured in.

    With measures from the user, columns without any value are dropped: other measures are usual
    for these sets.
    """
    return [
        column
        for column in columns
        if (any(_knows(e, name) for e in entries for name in column.row.sets) and is_main)
        or any(cell_of(entry, column).num_seeds for entry in entries)
    ]


def _table(
    entries: Sequence[Entry],
    plan: _Plan,
    *,
    base: str | None,
    test: SignificanceTest,
    published: Sequence[PublishedRow],
) -> StudyTable | None:
    """Build the table of a plan; return None if it has no value."""
    shown = [entry for entry in entries if entry.stage in (plan.stage, "given")]
    columns = _shown_columns(shown, plan.columns, is_main=plan.is_main)
    stages = (plan.stage, *WITHOUT_MODEL)
    rows = [e for e in entries if e.stage in stages and _is_row(e, columns)]
    has_average = len(columns) > 1 and len({column.measure for column in columns}) == 1
    targets = [[column] for column in columns] + ([columns] if has_average else [])
    cells = [tuple(average_of(entry, target) for target in targets) for entry in rows]
    if not any(cell.num_seeds for row in cells for cell in row):
        return None
    found = _base(rows, base)
    others = fitting(published, stage=plan.stage, suite=plan.suite, columns=columns, entries=rows)
    return StudyTable(
        key=plan.key,
        stage=plan.stage,
        suite=plan.suite,
        columns=tuple(columns),
        has_average=has_average,
        entries=tuple(rows),
        cells=tuple(cells),
        base=found,
        comparisons={} if found is None else compared(rows, found, targets, test),
        test=test,
        published=tuple((row, _with_average(values, has_average)) for row, values in others),
    )


def _base(rows: Sequence[Entry], base: str | None) -> Entry | None:
    """Return the row with label `base`, or the only row of that model; None if there is none.

    Without `base`: the row of `qwen-base`, else the first model.
    """
    for name in (base,) if base is not None else (DEFAULT_BASE,):
        same = [entry for entry in rows if entry.label == name]
        same = same or [entry for entry in rows if entry.name == name]
        if len(same) == 1:
            return same[0]
    if base is not None or len(rows) < 2:
        return None
    models = [entry for entry in rows if entry.stage not in WITHOUT_MODEL]
    given = [entry for entry in rows if entry.stage == "given"]
    return (models or given or list(rows))[0]


def _with_average(
    values: Sequence[PublishedValue | None], has_average: bool
) -> tuple[PublishedValue | None, ...]:
    if not has_average:
        return tuple(values)
    present = [value for value in values if value is not None]
    if len(present) < len(values):
        return (*values, None)
    mean = fmean(value.value for value in present)
    digits = min(len(value.text.partition(".")[2]) for value in present)
    return (*values, PublishedValue(value=mean, text=f"{mean:.{digits}f}"))


def summary_cell(table: StudyTable, entry: Entry) -> Cell:
    """Return a row's average over the columns if there is one, else its first cell."""
    return table.row(entry)[-1 if table.has_average else 0]


def summary_columns(table: StudyTable) -> list[Column]:
    """Return the columns whose mean `summary_cell` is."""
    return list(table.columns) if table.has_average else [table.columns[0]]


def summary_label(table: StudyTable) -> str:
    """Return a label of `summary_cell` for an axis."""
    first = table.columns[0]
    if table.has_average:
        return f"{table.title}: mean {first.measure} of {len(table.columns)}"
    return f"{STAGE_TITLES[table.stage]}: {first.measure} on {first.row.label}"
