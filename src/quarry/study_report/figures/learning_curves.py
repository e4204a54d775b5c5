"""Plot the learning curves of trained models: quality against optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from quarry.evaluation.drawing import figure_of, label, legend_height, save_with_pdf, wrapped
from quarry.study_report.entries import Entry
from quarry.study_report.figures.points import Style, shared_legend, styles
from quarry.study_report.run_record import LearningCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Subject = tuple[str, tuple[str, ...]]
"""A measure, and the sets over which it is averaged."""


def plot_learning_curves(entries: Sequence[Entry], path: Path) -> tuple[Path, ...]:
    """Draw the curves into the PNG `path` and a PDF beside it; return both.

    There is a panel for each measure and choice of sets. A line is the mean over the seeds at the
    steps that all of them have; single seeds are thin lines. Rows of one training run (its best
    model, its hybrid) share a curve, which is drawn once. Without a curve of at least two points
    nothing is drawn.
    """
    from matplotlib.ticker import MaxNLocator

    panels = curves_by_subject(entries)
    if not panels:
        return ()
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    style = styles(names)
    legend = legend_height(7.4, [label(name) for name in names])
    figure = figure_of(7.4, 3.7 * len(panels) + legend)
    grid = figure.subplots(len(panels), 1, squeeze=False)
    for row, ((measure, sets), curves) in zip(grid, panels.items(), strict=True):
        axes: Axes = row[0]
        for name, seeds in curves.items():
            _draw(axes, name, seeds, style[name])
        where = f"on {sets[0]}" if len(sets) == 1 else f"mean over {', '.join(sets)}"
        axes.set_title(wrapped(f"{measure} during training, {where}", 80), fontsize=10)
        axes.set_ylabel(f"{measure} (0 to 1)", fontsize=9)
        axes.margins(x=0.03, y=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    grid[-1][0].set_xlabel("optimizer step; thin lines: seeds", fontsize=9)
    shared_legend(figure, style)
    return save_with_pdf(figure, path)


def curves_by_subject(
    entries: Sequence[Entry],
) -> dict[Subject, dict[str, list[LearningCurve]]]:
    """Return subject -> label of the row -> learning curves of its seeds."""
    panels: dict[Subject, dict[str, list[LearningCurve]]] = {}
    drawn: set[Path] = set()
    for entry in entries:
        for run, curve in entry.curves.items():
            if len(curve.evaluations) > 1 and run not in drawn:
                drawn.add(run)
                subject = (curve.measure, curve.sets)
                panels.setdefault(subject, {}).setdefault(entry.label, []).append(curve)
    return panels


def mean_curve(curves: Sequence[LearningCurve]) -> list[tuple[int, float]]:
    """Return (optimizer step, mean) at the steps that all curves have."""
    by_step: list[Mapping[int, float]] = [dict(curve.evaluations) for curve in curves]
    shared = [step for step in by_step[0] if all(step in each for each in by_step)]
    return [(step, fmean(each[step] for each in by_step)) for step in sorted(shared)]


def _draw(axes: Axes, name: str, curves: Sequence[LearningCurve], style: Style) -> None:
    for curve in curves if len(curves) > 1 else ():
        steps, values = zip(*curve.evaluations, strict=True)
        axes.plot(steps, values, color=style.color, linewidth=0.6, alpha=0.6)
    steps, values = zip(*mean_curve(curves), strict=True)
    axes.plot(
        steps,
        values,
        color=style.color,
        marker=style.marker,
        markersize=5,
        linewidth=1.7,
        label=label(name),
    )
