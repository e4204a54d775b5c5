"""Plot quality against device-hours in training steps."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from quarry.evaluation.drawing import figure_of, label, legend_height, save_with_pdf, wrapped
from quarry.study_report.entries import Entry
from quarry.study_report.figures.points import draw_point, shared_legend, styles
from quarry.study_report.table import StudyTable, summary_cell, summary_label

WIDE_RANGE = 20
"""The axis is logarithmic if hours differ by more than this factor."""


def device_hours(entry: Entry) -> tuple[float, str] | None:
    """Return mean device-hours over the seeds, and the kinds of device; None if unknown."""
    costs = entry.training_costs
    if not costs:
        return None
    kinds = " and ".join(dict.fromkeys(cost.device for cost in costs))
    return fmean(cost.training_device_hours for cost in costs), kinds


def plot_cost(table: StudyTable, path: Path) -> tuple[Path, ...]:
    """Draw the trained models of `table` into the PNG `path` and a PDF beside it; return both.

    Hours are time in training steps, without evaluations, times the number of devices. Whiskers
    are standard deviations over seeds. With fewer than two points nothing is drawn.
    """
    points = [
        (entry, found, cell)
        for entry in table.models
        if (found := device_hours(entry)) is not None
        and (cell := summary_cell(table, entry)).value is not None
    ]
    if len(points) < 2:
        return ()
    kinds = list(dict.fromkeys(kind for _, (_, kind), _ in points))
    names = [e.label if len(kinds) == 1 else f"{e.label} ({kind})" for e, (_, kind), _ in points]
    shown = styles(names)
    figure = figure_of(7.0, 4.4 + legend_height(7.0, [label(name) for name in names]))
    axes = figure.subplots()
    for name, (_, (hours, _), cell) in zip(names, points, strict=True):
        draw_point(
            axes,
            hours,
            cell.value or 0.0,
            style=shown[name],
            name=name,
            deviations=(None, cell.deviation),
        )
    numbers = [hours for _, (hours, _), _ in points]
    if min(numbers) > 0 and max(numbers) / min(numbers) > WIDE_RANGE:
        axes.set_xscale("log")
    axes.margins(0.12)
    on = f" ({kinds[0]})" if len(kinds) == 1 else ""
    about = "; whiskers: deviation over seeds" if any(c.deviation for *_, c in points) else ""
    axes.set_xlabel(wrapped(f"hours in training steps x devices{on}{about}", 90), fontsize=9)
    axes.set_ylabel(wrapped(summary_label(table), 60), fontsize=9)
    axes.set_title("Quality against training time", fontsize=10)
    shared_legend(figure, shown)
    return save_with_pdf(figure, path)
