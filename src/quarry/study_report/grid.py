"""Turn a study's table into texts with emphasis and marks, independent of the output format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from quarry.evaluation.report import term_tokenizers
from quarry.evaluation.shown_caveats import mark_explained, marked, marked_sets
from quarry.study_report.cells import Cell
from quarry.study_report.entries import Entry
from quarry.study_report.measured import GIVEN_LABEL
from quarry.study_report.settings import WITHOUT_MODEL
from quarry.study_report.table import StudyTable
from quarry.types import Report

Emphasis = Literal["best", "second"] | None
MEAN = "mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class GridCell:
    """One cell as text.

    Attributes:
        text: the formatted number; None: missing.
        deviation: formatted standard deviation over seeds; None: not shown.
        emphasis: whether it is the best or second best value of its column.
        is_marked: whether the difference to the base is significant.
    """

    text: str | None
    deviation: str | None = None
    emphasis: Emphasis = None
    is_marked: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class GridRow:
    """A row's name and its cells."""

    label: str
    cells: tuple[GridCell, ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table as texts, ready for any output format.

    Attributes:
        key: key for file names and references.
        title: title of the table.
        caption: sentences on how to read it.
        header: (name, measure) of each column; the measure is empty if all columns share it.
        blocks: groups of rows: baselines, given rankings, models, published rows.
        published_from: index of the first block of published rows.
    """

    key: str
    title: str
    caption: tuple[str, ...]
    header: tuple[tuple[str, str], ...]
    blocks: tuple[tuple[GridRow, ...], ...]
    published_from: int


def value_grid(table: StudyTable) -> Grid:
    """Return the grid of values; published rows are not considered for emphasis."""
    emphases = _emphases(table)
    rows = [
        GridRow(
            label=entry.label,
            cells=tuple(
                GridCell(
                    text=None if cell.value is None else f"{cell.value:.4f}",
                    deviation=_deviation(table, row, cell),
                    emphasis=emphases[row][column],
                    is_marked=_is_marked(table, row, column),
                )
                for column, cell in enumerate(cells)
            ),
        )
        for row, (entry, cells) in enumerate(zip(table.entries, table.cells, strict=True))
    ]
    others = tuple(
        GridRow(
            label=row.label,
            cells=tuple(GridCell(text=None if v is None else v.text) for v in values),
        )
        for row, values in table.published
    )
    own = _blocks(table, rows)
    return Grid(
        key=table.key,
        title=table.title,
        caption=tuple(_caption(table)),
        header=_header(table),
        blocks=(*own, others) if others else own,
        published_from=len(own),
    )


def difference_grid(table: StudyTable) -> Grid | None:
    """Return the grid of differences to the base; None without a base or comparisons."""
    if table.base is None or not table.comparisons:
        return None
    rows = [
        GridRow(
            label=entry.label,
            cells=tuple(
                GridCell(
                    text=None if (d := table.difference(row, column)) is None else f"{d:+.4f}",
                    is_marked=_is_marked(table, row, column),
                )
                for column in range(len(table.cells[row]))
            ),
        )
        for row, entry in enumerate(table.entries)
        if entry is not table.base
    ]
    return Grid(
        key=f"{table.key}_differences",
        title=f"{table.title}: difference to {table.base.label}",
        caption=(_about_test(table),),
        header=_header(table),
        blocks=(tuple(rows),),
        published_from=1,
    )


def _header(table: StudyTable) -> tuple[tuple[str, str], ...]:
    doubtful = marked_sets([_report(entry, table) for entry in table.entries])
    names = [
        (
            marked(
                f"{c.row.name} ({len(c.row.sets)})" if c.row.is_group else c.row.name,
                c.row.sets,
                doubtful,
            ),
            c.measure,
        )
        for c in table.columns
    ]
    if table.has_average:
        names.append((f"{MEAN} of {len(table.columns)}", table.measures[0]))
    if len(table.measures) == 1:
        return tuple((name, "") for name, _ in names)
    return tuple(names)


def _blocks(table: StudyTable, rows: Sequence[GridRow]) -> tuple[tuple[GridRow, ...], ...]:
    blocks: dict[str, list[GridRow]] = {}
    for row, entry in zip(rows, table.entries, strict=True):
        kind = entry.stage if entry.stage in WITHOUT_MODEL else "model"
        blocks.setdefault(kind, []).append(row)
    return tuple(tuple(block) for block in blocks.values())


def _emphases(table: StudyTable) -> list[list[Emphasis]]:
    """Return emphases, [rows][columns]; values equal at four decimals are equally good."""
    columns = zip(*table.cells, strict=True)
    by_column = [_emphasis([cell.value for cell in column]) for column in columns]
    return [list(row) for row in zip(*by_column, strict=True)]


def _emphasis(values: Sequence[float | None]) -> list[Emphasis]:
    shown = [None if value is None else round(value, 4) for value in values]
    levels = sorted({value for value in shown if value is not None}, reverse=True)
    if sum(value is not None for value in shown) < 2:  # the best of one says nothing
        return [None] * len(values)
    named: dict[float, Emphasis] = dict(zip(levels, ("best", "second"), strict=False))
    return [None if value is None else named.get(value) for value in shown]


def _deviation(table: StudyTable, row: int, cell: Cell) -> str | None:
    """Return the formatted deviation; None if all deviations of the row are 0 or missing."""
    deviations = [each.deviation for each in table.cells[row]]
    if cell.deviation is None or not any(deviations):
        return None
    return f"{cell.deviation:.4f}"


def _is_marked(table: StudyTable, row: int, column: int) -> bool:
    comparison = table.comparisons.get((row, column))
    return comparison is not None and comparison.is_significant


def _caption(table: StudyTable) -> list[str]:
    measure = table.measures[0] if len(table.measures) == 1 else "Measures are in the header"
    sentences = [f"{measure}, 0 to 1; best in bold, second best underlined."]
    groups = [column.row.name for column in table.columns if column.row.is_group]
    if groups:
        sentences.append(
            f"Columns with a number in brackets are means over so many sets ({', '.join(groups)})."
        )
    if table.has_average:
        sentences.append("The mean is unweighted over the columns.")
    seeds = sorted({len(entry.seeds) for entry in table.models if len(entry.seeds) > 1})
    if seeds:
        numbers = " to ".join(dict.fromkeys(str(n) for n in (seeds[0], seeds[-1])))
        sentences.append(
            f"Mean and standard deviation over seeds ({numbers}), where a row has several."
        )
    if table.comparisons:
        sentences.append(_about_test(table))
    if any(entry.stage == "given" for entry in table.entries):
        sentences.append(
            f"Rows with ({GIVEN_LABEL}) are scored from run files of others: how their models were "
            "trained is not known, nor whether titles were encoded."
        )
    reports = [_report(entry, table) for entry in table.entries]
    sentences += [*term_tokenizers(reports), *mark_explained(reports)]
    if table.published:
        sentences.append(
            "Rows with a dagger are published numbers of others, made under conventions of their "
            "own: they are excluded from bold, underline and tests."
        )
    return sentences


def _report(entry: Entry, table: StudyTable) -> Report:
    """Return a row's results on the sets of a table, each of the first seed that has one."""
    names = dict.fromkeys(name for column in table.columns for name in column.row.sets)
    found = [entry.any_result(name) for name in names]
    return Report(
        retriever=entry.label, results=tuple(result for result in found if result is not None)
    )


def _about_test(table: StudyTable) -> str:
    assert table.base is not None
    test = table.test
    has_seeds = any(len(entry.seeds) > 1 for entry in table.models)
    return (
        f"An asterisk: different from {table.base.label} (paired randomization test over the "
        f"queries{', whose values are means over the seeds' if has_seeds else ''}, within each set "
        f"where a column has several; two-sided, {test.num_permutations:,} permutations, exact "
        f"where there are no more of them, seed {test.seed}; alpha {test.alpha:g} after Holm's "
        f"correction for the {len(table.comparisons)} comparisons of the table)."
    )
