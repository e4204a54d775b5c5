"""Zero-shot against supervised: does what helps before training still help after it?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quarry.evaluation.drawing import GREY, figure_of, save_with_pdf, wrapped
from quarry.evaluation.study.cells import Cell
from quarry.evaluation.study.entries import Entry
from quarry.evaluation.study.figures.points import draw_point, shared_legend, styles
from quarry.evaluation.study.figures.summary import summary_cell, summary_label
from quarry.evaluation.study.table import StudyTable

MAX_PANELS = 6

Pair = tuple[str, Cell, Cell]
"""A model, as it came and trained."""


def plot_stages(tables: Sequence[StudyTable], path: Path) -> tuple[Path, ...]:
    """Draws a panel for each zero-shot and each supervised table that have a model in common.

    A point is a model: its average (or first column, where there is none) before and after
    training; whiskers are standard deviations over seeds. Models are the same by name and size,
    whatever the prompt. Where both tables have the same columns, a diagonal shows "no change".

    Returns:
        The PNG and the PDF; nothing is drawn without a pair.
    """
    panels = [
        (before, after, pairs)
        for before in tables
        for after in tables
        if before.stage == "zero_shot" and after.stage == "supervised"
        if (pairs := pairs_of(before, after))
    ][:MAX_PANELS]
    if not panels:
        return ()
    num_columns = min(len(panels), 3)
    num_rows = -(-len(panels) // num_columns)
    figure = figure_of(max(4.6 * num_columns, 6.0), 4.0 * num_rows + 1.0)
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    names = list(dict.fromkeys(name for _, _, pairs in panels for name, _, _ in pairs))
    style = styles(names)
    for axes, (before, after, pairs) in zip(grid.flat, panels, strict=False):
        for name, x, y in pairs:
            draw_point(
                axes,
                x.value or 0.0,
                y.value or 0.0,
                style=style[name],
                name=name,
                deviations=(x.deviation, y.deviation),
            )
        if before.columns == after.columns:
            axes.axline((0, 0), slope=1, color=GREY, linewidth=0.8, linestyle="--")
            axes.text(
                0.02, 0.98, "dashed: no change", transform=axes.transAxes, va="top", fontsize=8
            )
        axes.margins(0.12)
        axes.set_xlabel(wrapped(summary_label(before), 44), fontsize=9)
        axes.set_ylabel(wrapped(summary_label(after), 44), fontsize=9)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle("Zero-shot against supervised", fontsize=11)
    shared_legend(figure, grid[0][0], style)
    return save_with_pdf(figure, path)


def pairs_of(before: StudyTable, after: StudyTable) -> list[Pair]:
    """Models that have a value in both tables; several rows of one model make several pairs."""
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
        pairs.append((second.label if is_only else f"{first.label} / {second.label}", x, y))
    return pairs


def _model(entry: Entry) -> tuple[str, str | None]:
    return entry.name, entry.members[0].size
