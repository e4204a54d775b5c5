"""Plot supervised against zero-shot quality of the models that tables of both stages have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quarry.evaluation.drawing import (
    GRAY,
    figure_of,
    label,
    legend_height,
    save_with_pdf,
    wrapped,
)
from quarry.study_report.cells import Cell
from quarry.study_report.entries import Entry
from quarry.study_report.figures.points import Style, draw_point, shared_legend, styles
from quarry.study_report.table import StudyTable, summary_cell, summary_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 6

Pair = tuple[str, Cell, Cell]
"""Name of a model, its zero-shot cell and its supervised cell."""

Panel = tuple[StudyTable, StudyTable, list[Pair]]


def plot_stages(tables: Sequence[StudyTable], path: Path) -> tuple[Path, ...]:
    """Draw a panel for each pair of a zero-shot and a supervised table with common models.

    A point is a model: its average (or first column, if there is none) before and after training.
    Whiskers are standard deviations over seeds. Models match by name and size, whatever the
    prompt. If both tables have the same columns, a diagonal shows "no change".

    Returns:
        The PNG and the PDF; empty, and nothing is drawn, where no two tables have two common
        models: a single point says no more than the tables.
    """
    panels = [
        (before, after, pairs)
        for before in tables
        for after in tables
        if before.stage == "zero_shot" and after.stage == "supervised"
        if len(pairs := pairs_of(before, after)) > 1
    ][:MAX_PANELS]
    if not panels:
        return ()
    style = _styles(panels)
    num_columns = min(len(panels), 3)
    num_rows = -(-len(panels) // num_columns)
    width = max(4.6 * num_columns, 6.0)
    legend = legend_height(width, [label(name) for name in style])
    figure = figure_of(width, 4.2 * num_rows + legend)
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, style)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    has_whiskers = any(c.deviation for _, _, pairs in panels for _, *both in pairs for c in both)
    about = "; whiskers: standard deviation over seeds" if has_whiskers else ""
    figure.suptitle(f"Zero-shot against supervised{about}", fontsize=11)
    shared_legend(figure, style)
    return save_with_pdf(figure, path)


def _styles(panels: Sequence[Panel]) -> dict[str, Style]:
    """Return a style for each name, in the order of the rows of the supervised tables."""
    names = dict.fromkeys(name for _, _, pairs in panels for name, _, _ in pairs)
    rows = [entry.label for _, after, _ in panels for entry in after.models]
    return styles(sorted(names, key=lambda name: rows.index(name) if name in rows else len(rows)))


def _draw_panel(axes: Axes, panel: Panel, style: Mapping[str, Style]) -> None:
    before, after, pairs = panel
    for name, x, y in pairs:
        draw_point(
            axes,
            x.value or 0.0,
            y.value or 0.0,
            style=style[name],
            name=name,
            deviations=(x.deviation, y.deviation),
        )
    axes.margins(0.12)
    if before.columns == after.columns:
        _draw_diagonal(axes)
    axes.set_xlabel(wrapped(summary_label(before), 44), fontsize=9)
    axes.set_ylabel(wrapped(summary_label(after), 44), fontsize=9)


def pairs_of(before: StudyTable, after: StudyTable) -> list[Pair]:
    """Return models with a value in both tables; several rows of a model make several pairs."""
    found: list[tuple[Entry, Entry]] = []
    for entry in after.models:
        same = [e for e in before.models if _model(e) == _model(entry)]
        found += [(e, entry) for e in same]
    rows = [entry for _, entry in found]
    pairs = []
    for first, second in found:
        x, y = summary_cell(before, first), summary_cell(after, second)
        if x.value is None or y.value is None:
            continue
        is_only = rows.count(second) == 1
        name = second.label if is_only else f"{second.label} / {first.variant}"
        pairs.append((name, x, y))
    return pairs


def _model(entry: Entry) -> tuple[str, str | None]:
    return entry.name, entry.members[0].size


def _draw_diagonal(axes: Axes) -> None:
    """Draw the line on which training changes nothing, if it crosses the panel."""
    low_x, high_x = axes.get_xlim()
    low_y, high_y = axes.get_ylim()
    if max(low_x, low_y) < min(high_x, high_y):
        axes.axline((low_x, low_x), slope=1, color=GRAY, linewidth=0.8, linestyle="--")
        axes.set(xlim=(low_x, high_x), ylim=(low_y, high_y))
        axes.set_title("dashed: training changes nothing", fontsize=8)
