"""Write a report as a Markdown page: tables, figures, missing values, and run directories."""

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
"""Title of a figure -> its PNG, relative to the page."""


def report_page(
    title: str,
    tables: Sequence[StudyTable],
    *,
    figures: Mapping[str, Figures],
    left_out: Sequence[str],
) -> str:
    """Return the page as Markdown.

    Args:
        title: title of the study, or a description of the runs.
        figures: key of a table (or "" for several tables) -> its figures.
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
    """Return a line for each reason why cells of a row are missing or lack seeds."""
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
    """Return the run directories of each row, and the settings in which rows of a stage differ."""
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
            tags = dict.fromkeys(tag for m in entry.members for tag in m.record.tags)
            tagged = f" (tags {escaped(', '.join(tags))})" if tags else ""
            lines.append(f"- {escaped(entry.label)}{named}: {places}{tagged}")
        parts.append("\n".join(lines))
        if text := _differences(same):
            parts.append(text)
    return parts


def _differences(entries: Sequence[Entry]) -> str:
    """Return a sentence on the settings in which rows differ, besides the model; "" if none."""
    members = [entry.members[0] for entry in entries]
    groups, keys = differing([m.settings for m in members], [m.options for m in members])
    names = [name for name in (*groups, *keys) if name != "model"]
    if not names:
        return ""
    shown = ", ".join(f"`{name}`" for name in names)
    return f"These rows differ in the model and in {shown}."


def _sources(tables: Sequence[StudyTable]) -> str:
    """Return a line for each source of published rows, with the labels of its rows."""
    lines: dict[str, list[str]] = {}
    for table in tables:
        for row, _ in table.published:
            text = f"{escaped(row.source)} ({escaped(row.confidence)})."
            text += f" {escaped(row.note)}" if row.note else ""
            lines.setdefault(text, []).append(row.label)
    return "\n".join(
        f"- {escaped('; '.join(dict.fromkeys(labels)))}: {text}" for text, labels in lines.items()
    )
