"""The one number that figures show of a row: its average, else its first column."""

from __future__ import annotations

from quarry.evaluation.study.cells import Cell
from quarry.evaluation.study.entries import Entry
from quarry.evaluation.study.suites import Column
from quarry.evaluation.study.table import STAGE_TITLES, StudyTable


def summary_cell(table: StudyTable, entry: Entry) -> Cell:
    """The average over the columns where there is one, else the first column's."""
    return table.row(entry)[-1 if table.has_average else 0]


def summary_columns(table: StudyTable) -> list[Column]:
    """What `summary_cell` is the mean of."""
    return list(table.columns) if table.has_average else [table.columns[0]]


def summary_label(table: StudyTable) -> str:
    """What `summary_cell` shows, for an axis."""
    first = table.columns[0]
    if table.has_average:
        return f"{table.title}: mean {first.measure} of {len(table.columns)}"
    return f"{STAGE_TITLES[table.stage]}: {first.measure} on {first.row.label}"
