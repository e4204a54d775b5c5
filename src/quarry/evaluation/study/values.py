"""All numbers of a report as one long table, for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from quarry.evaluation.study.grid import MEAN
from quarry.evaluation.study.table import StudyTable

HEADER = (
    "table",
    "stage",
    "suite",
    "model",
    "source",
    "column",
    "measure",
    "value",
    "deviation",
    "num_seeds",
    "missing",
    "base",
    "difference",
    "p_value",
    "p_corrected",
    "is_significant",
    "num_queries",
)


def values_csv(tables: Sequence[StudyTable]) -> str:
    """A line for each cell, numbers in full. `source` is empty for what was measured here, and
    `missing` says why there is no value."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, HEADER, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        writer.writerows(_measured(table))
        writer.writerows(_published(table))
    return stream.getvalue()


def _measured(table: StudyTable) -> Iterator[dict[str, object]]:
    for row, entry in enumerate(table.entries):
        for column, place in enumerate(_places(table)):
            cell = table.cells[row][column]
            line = _head(table) | place | {"model": entry.label, "num_seeds": cell.num_seeds}
            for key, value in (
                ("value", cell.value),
                ("deviation", cell.deviation),
                ("missing", cell.reason),
                ("difference", table.difference(row, column)),
            ):
                line[key] = "" if value is None else value
            comparison = table.comparisons.get((row, column))
            if comparison is not None and table.base is not None:
                line |= {
                    "base": table.base.label,
                    "p_value": comparison.p_value,
                    "p_corrected": comparison.corrected,
                    "is_significant": str(comparison.is_significant).lower(),
                    "num_queries": comparison.num_queries,
                }
            yield line


def _published(table: StudyTable) -> Iterator[dict[str, object]]:
    for published, values in table.published:
        for place, value in zip(_places(table), values, strict=True):
            if value is not None:
                own = {"model": published.label, "source": published.source, "value": value.text}
                yield _head(table) | place | own


def _head(table: StudyTable) -> dict[str, object]:
    return {"table": table.key, "stage": table.stage, "suite": table.suite.key}


def _places(table: StudyTable) -> list[dict[str, object]]:
    places: list[dict[str, object]] = [
        {"column": column.row.name, "measure": column.measure} for column in table.columns
    ]
    if table.has_average:
        places.append({"column": MEAN, "measure": table.measures[0]})
    return places
