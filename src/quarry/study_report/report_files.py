"""Write a report's folder: the page, tables in LaTeX and CSV, figures as PNG and PDF."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quarry.runtime.extras import can_draw
from quarry.runtime.files import write_json, write_text
from quarry.study_report.discovery import REPORT_FILE
from quarry.study_report.figures.cost import plot_cost
from quarry.study_report.figures.heat_map import plot_heat_map
from quarry.study_report.figures.learning_curves import plot_learning_curves
from quarry.study_report.figures.specialisations import plot_specialisations
from quarry.study_report.figures.stages import plot_stages
from quarry.study_report.grid import Grid, difference_grid, value_grid
from quarry.study_report.markup import grid_csv, grid_latex, latex_document, values_csv
from quarry.study_report.report_page import report_page
from quarry.study_report.table import StudyTable

PAGE = "report.md"


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """Content of a report on a study.

    Attributes:
        title: title of the study, or a description of the runs.
        tables: the tables, with all rows.
        specialisations: specialization -> names of models, for the bar charts.
        left_out: sentences on runs that are in no table.
    """

    title: str
    tables: tuple[StudyTable, ...]
    specialisations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def write_study_report(report: StudyReport, folder: Path) -> dict[str, dict[str, Path]]:
    """Write `report` into `folder`, and delete files of an older report there.

    Returns:
        Key of a table ("" for several tables) -> title of a figure -> its PNG, below `folder`.
    """
    old = _files_of(folder)
    written: list[Path] = []
    grids = list(_grids(report.tables))
    for grid in grids:
        for ending, text in ((".tex", grid_latex(grid)), (".csv", grid_csv(grid))):
            written.append(folder / "tables" / f"{grid.key}{ending}")
            write_text(written[-1], text)
    figures = _draw(report, folder)
    written += [path for shown in figures.values() for pair in shown.values() for path in pair]
    pictures = {key: {k: pair[0] for k, pair in v.items()} for key, v in figures.items()}
    texts = {
        PAGE: report_page(
            report.title,
            report.tables,
            figures={
                key: {name: path.relative_to(folder) for name, path in shown.items()}
                for key, shown in pictures.items()
            },
            left_out=report.left_out,
        ),
        "report.tex": latex_document([grid.key for grid in grids]),
        "values.csv": values_csv(report.tables),
    }
    for name, text in texts.items():
        written.append(folder / name)
        write_text(written[-1], text)
    names = sorted(path.relative_to(folder).as_posix() for path in written)
    for stale in set(old) - set(names):
        (folder / stale).unlink(missing_ok=True)
    write_json(folder / REPORT_FILE, {"files": names})
    return pictures


def _grids(tables: Sequence[StudyTable]) -> list[Grid]:
    made = [grid for table in tables for grid in (value_grid(table), difference_grid(table))]
    return [grid for grid in made if grid is not None]


def _draw(report: StudyReport, folder: Path) -> dict[str, dict[str, tuple[Path, ...]]]:
    """Draw all figures that have data; return key of a table -> title -> (PNG, PDF).

    Without matplotlib there are none.
    """
    if not can_draw():
        return {}
    figures = folder / "figures"
    found: dict[str, dict[str, tuple[Path, ...]]] = {}
    for table in report.tables:
        found[table.key] = {
            "Heat map": plot_heat_map(table, figures / f"{table.key}_heat_map.png"),
            "Specialisations": plot_specialisations(
                table, report.specialisations, figures / f"{table.key}_specialisations.png"
            ),
            "Quality against training time": plot_cost(table, figures / f"{table.key}_cost.png"),
        }
    entries = list({id(e): e for table in report.tables for e in table.models}.values())
    found[""] = {
        "Zero-shot against supervised": plot_stages(report.tables, figures / "stages.png"),
        "Learning curves": plot_learning_curves(entries, figures / "learning_curves.png"),
    }
    return {key: {name: p for name, p in shown.items() if p} for key, shown in found.items()}


def _files_of(folder: Path) -> list[str]:
    """Return the names of the files that the folder's present report wrote; empty without one."""
    manifest = folder / REPORT_FILE
    if not manifest.is_file():
        return []
    try:
        names = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (KeyError, TypeError, ValueError):
        return []
    return [name for name in names if ".." not in Path(name).parts and not Path(name).is_absolute()]
