"""Zero-shot against supervised: does what helps before training still help after it?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quarry.evaluation.drawing import GREY, figure_of, label, legend_below, save_with_pdf, wrapped
from quarry.evaluation.study.cells import Cell
from quarry.evaluation.study.entries import Entry
from quarry.evaluation.study.figures.summary import styles, summary_cell, summary_label
from quarry.evaluation.study.table import StudyTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
            _point(axes, x, y, name, style[name])
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
    _legend(grid.flat[: len(panels)], names)
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


def _point(axes: Axes, x: Cell, y: Cell, name: str, style: dict[str, str]) -> None:
    axes.errorbar(
        [x.value],
        [y.value],
        xerr=x.deviation or None,
        yerr=y.deviation or None,
        linestyle="none",
        elinewidth=0.9,
        markersize=7,
        label=label(name),
        **style,
    )


def _legend(panels: Sequence[Axes], names: Sequence[str]) -> None:
    """One legend of all panels: the first one is given what it lacks."""
    first = panels[0]
    known = first.get_legend_handles_labels()[1]
    for panel in panels[1:]:
        for handle, text in zip(*panel.get_legend_handles_labels(), strict=True):
            if text not in known:
                known.append(text)
                first.errorbar(
                    [],
                    [],
                    linestyle="none",
                    label=text,
                    color=handle[0].get_color(),
                    marker=handle[0].get_marker(),
                    markersize=7,
                )
    legend_below(first.figure, first)
