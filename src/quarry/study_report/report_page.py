"""The report as a Markdown page: tables and figures, then what is missing and where it all is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from quarry.evaluation.tables import escaped
from quarry.study_report.entries import Entry
from quarry.study_report.grid import MEAN, difference_grid, value_grid
from quarry.study_report.markup import DAGGER, grid_markdown
from quarry.study_report.settings import differing
from quarry.study_report.table import STAGE_TITLES, StudyTable

Figures = Mapping[str, Path]
"""What a figure shows -> its PNG, relative to the page."""


def report_page(
    title: str,
    tables: Sequence[StudyTable],
    *,
    figures: Mapping[str, Figures],
    left_out: Sequence[str],
) -> str:
    """The page.

    Args:
        title: of the study, or a description of the runs.
        figures: key of a table (or "" for those of several tables) -> its figures.
        left_out: sentences on runs that are in no table.
    """
    entries = list({id(e): e for table in tables for e in table.entries}.values())
    parts = [f"# {escaped(title)}"]
    for table in tables:
        parts += _table_section(table, figures.get(table.key, {}))
    if figures.get(""):
        parts += ["## Across tables", *_pictures(figures[""])]
    missing = _missing(tables)
    if missing or left_out:
        lines = [*missing, *(escaped(text) for text in left_out)]
        parts += ["## Missing", "\n".join(f"- {line}" for line in lines)]
    remarks = [f"{escaped(e.label)}: {escaped(text)}" for e in entries for text in e.remarks]
    if remarks:
        parts += ["## Measured more than once", "\n".join(f"- {line}" for line in remarks)]
    parts += ["## Rows", *_rows(entries)]
    if any(table.published for table in tables):
        parts += [f"## Published rows ({DAGGER})", _sources(tables)]
    return "\n\n".join(parts) + "\n"


def _table_section(table: StudyTable, figures: Figures) -> list[str]:
    grid, differences = value_grid(table), difference_grid(table)
    parts = [f"## {escaped(table.title)}", grid_markdown(grid), escaped(" ".join(grid.caption))]
    if differences is not None and table.base is not None:
        parts += [f"### Difference to {escaped(table.base.label)}", grid_markdown(differences)]
    return [*parts, *_pictures(figures)]


def _pictures(figures: Figures) -> list[str]:
    return [f"![{escaped(name)}]({path.as_posix()})" for name, path in figures.items()]


def _missing(tables: Sequence[StudyTable]) -> list[str]:
    """A line for each cell that is missing, or lacks seeds."""
    lines = []
    for table in tables:
        names = [column.row.name for column in table.columns] + [MEAN]
        for entry, cells in zip(table.entries, table.cells, strict=True):
            found: dict[str, list[str]] = {}
            for name, cell in zip(names, cells, strict=False):
                if cell.reason is not None:
                    found.setdefault(cell.reason, []).append(name)
            for reason, columns in found.items():
                where = escaped(f"{table.title}: {entry.label}, {', '.join(columns)}")
                lines.append(f"{where}: {escaped(reason)}")
    return lines


def _rows(entries: Sequence[Entry]) -> list[str]:
    """Where each row comes from, and in what rows of one stage differ."""
    directories = [path for entry in entries for path in entry.directories]
    above = Path(os.path.commonpath([path.parent for path in directories]))
    parts = [f"Run directories are below `{above}`."]
    for stage in dict.fromkeys(entry.stage for entry in entries):
        same = [entry for entry in entries if entry.stage == stage]
        parts.append(f"### {STAGE_TITLES[stage]}")
        lines = []
        for entry in same:
            seeds = [seed for seed in entry.seeds if seed is not None]
            named = f" (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})" if seeds else ""
            places = ", ".join(f"`{path.relative_to(above)}`" for path in entry.directories)
            lines.append(f"- {escaped(entry.label)}{named}: {places}")
        parts.append("\n".join(lines))
        if text := _differences(same):
            parts.append(text)
    return parts


def _differences(entries: Sequence[Entry]) -> str:
    """What is not the same for all rows, the name of the model aside."""
    members = [entry.members[0] for entry in entries]
    groups, keys = differing([m.settings for m in members], [m.options for m in members])
    names = [name for name in (*groups, *keys) if name != "model"]
    if not names:
        return ""
    shown = ", ".join(f"`{name}`" for name in names)
    return f"These rows differ in the model and in {shown}."


def _sources(tables: Sequence[StudyTable]) -> str:
    """A line for each source, with the rows that it is of."""
    lines: dict[str, list[str]] = {}
    for table in tables:
        for row, _ in table.published:
            text = f"{escaped(row.source)} ({escaped(row.confidence)})."
            text += f" {escaped(row.note)}" if row.note else ""
            lines.setdefault(text, []).append(row.label)
    return "\n".join(
        f"- {escaped('; '.join(dict.fromkeys(labels)))}: {text}" for text, labels in lines.items()
    )
