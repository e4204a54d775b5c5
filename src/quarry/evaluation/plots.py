"""Plot reports as bar charts, and evaluations during training as a learning curve.

matplotlib is slow to import and only needed to draw, so the functions import it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quarry.evaluation.drawing import (
    COLORS,
    DARK,
    GRAY,
    figure_of,
    label,
    legend_below,
    legend_beside,
    save,
    wrapped,
)
from quarry.evaluation.report import MEASURES
from quarry.evaluation.rows import (
    Row,
    failed_rows,
    has_failed,
    interval_of,
    mean_label,
    mean_of,
    rows_of,
    shown_measures,
    value_of,
)
from quarry.types import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HATCHES = ("", "///", "...", "xxx")  # one for each pass through the colors
_DASHES = ((0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 1)))

_Bar = tuple[float | None, tuple[float, float] | None, str]
"""A value, its confidence interval, and the text at the end of the bar."""


def plot_bars(reports: Sequence[Report], path: Path, *, measures: Sequence[str] = MEASURES) -> None:
    """Draw the results as bars into the PNG `path`, whose folder may be new.

    One set: vertical bars, grouped by measure. Several sets: horizontal bars of the main measure,
    `measures[0]`, grouped by set (a group of sets counts as one), and the mean. Whiskers are
    confidence intervals of results that have them. Missing values read "n/a", failures "failed".

    Raises:
        UserError: no retriever has a value of any of `measures`.
    """
    shown, rows = shown_measures(reports, measures), rows_of(reports)
    if len(rows) == 1 and not rows[0].is_group:
        _bars_of_one_set(reports, rows[0], shown, path)
    else:
        _bars_of_sets(reports, rows, shown[0], path)


def plot_learning_curve(
    points: Sequence[tuple[int, float]],
    path: Path,
    *,
    baselines: Mapping[str, float],
    losses: Sequence[tuple[int, float]] = (),
    measure: str = "nDCG@10",
) -> None:
    """Draw evaluation results and losses against optimizer steps into the PNG `path`.

    Each has a panel if it has two points or more; of a single one there is no curve. Without either
    nothing is drawn.

    Args:
        points: (optimizer step, value of `measure`), in any order.
        baselines: name -> value of `measure`, drawn as dashed lines; may be empty.
        losses: (optimizer step, training loss), in any order; drawn with their running median.
    """
    from matplotlib.ticker import MaxNLocator

    # The color after the baselines', as in the usual bar charts: bm25, untrained, trained.
    color = COLORS[len(baselines) % len(COLORS)]
    has_curve, has_losses = len(points) > 1, len(losses) > 1
    if not has_curve and not has_losses:
        return
    figure = figure_of(9.0, 6.8 if has_curve and has_losses else 4.4)
    rows = figure.subplots(has_curve + has_losses, 1, sharex=True, squeeze=False)
    panels: list[Axes] = [row[0] for row in rows]
    if has_curve:
        _curve_panel(panels[0], sorted(points), baselines, measure, color)
    if has_losses:
        _loss_panel(panels[-1], sorted(losses), color)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    panels[-1].set_xlabel("optimizer step")
    save(figure, path)


def running_median(values: Sequence[float], window: int) -> np.ndarray:
    """Return the centered running median over an odd `window`, which shrinks at both ends."""
    assert window % 2 == 1, window
    array = np.asarray(values, dtype=np.float64)
    half = [min(window // 2, i, len(array) - 1 - i) for i in range(len(array))]
    return np.array([np.median(array[i - h : i + h + 1]) for i, h in enumerate(half)])


def _bars_of_one_set(
    reports: Sequence[Report], row: Row, measures: Sequence[str], path: Path
) -> None:
    num_bars = len(measures) * len(reports)
    figure = figure_of(max(6.4, 1.8 + 0.62 * num_bars), 4.6)
    axes = figure.subplots()
    bars = [[_bar(report, row, measure) for measure in measures] for report in reports]
    width = _draw_bars(axes, reports, bars, is_level=False)
    axes.set_xticks(range(len(measures)), [label(measure) for measure in measures])
    axes.set_xlim(-0.5 - width / 2, len(measures) - 0.5 + width / 2)
    axes.set_ylim(0, _room(bars, 1.1))
    axes.set_ylabel("mean over the queries (0 to 1)")
    axes.set_xlabel("measure" + _about_whiskers(bars))
    axes.tick_params(axis="x", length=0)
    axes.set_title(wrapped(f"Retrieval quality on {row.name}", 70))
    legend_below(figure, axes)
    save(figure, path)


def _bars_of_sets(reports: Sequence[Report], rows: Sequence[Row], measure: str, path: Path) -> None:
    failed = failed_rows(reports, rows)
    counted = [row for row in rows if row not in failed]
    bars = []
    for report in reports:
        mean = mean_of(report, counted, measure)
        shown = "n/a" if mean is None else f"{mean:.4f}"
        bars.append([*(_bar(report, row, measure) for row in rows), (mean, None, shown)])
    num_rows = len(rows) + 1
    figure = figure_of(8.0, 1.8 + num_rows * (0.16 + 0.17 * len(reports)))
    axes = figure.subplots()
    _draw_bars(axes, reports, bars, is_level=True)
    names = [row.label for row in rows] + [mean_label(failed)]
    axes.set_yticks(range(num_rows), [label(name) for name in names])
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.axhline(num_rows - 1.5, color=GRAY, linewidth=0.8)
    axes.set_ylim(num_rows - 0.5, -0.5)
    axes.set_xlim(0, _room(bars, 1.1))
    axes.set_xlabel(f"{measure}, mean over the queries (0 to 1){_about_whiskers(bars)}")
    axes.set_ylabel("set")
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"{measure} of each set and their mean")
    legend_below(figure, axes)
    save(figure, path)


def _bar(report: Report, row: Row, measure: str) -> _Bar:
    value = value_of(report, row, measure)
    if value is None:
        return None, None, "failed" if has_failed(report, row) else "n/a"
    return value, interval_of(report, row, measure), f"{value:.4f}"


def _draw_bars(
    axes: Axes, reports: Sequence[Report], bars: Sequence[Sequence[_Bar]], *, is_level: bool
) -> float:
    """Draw a series of bars per report, each with its value; return the width of a bar."""
    width = 0.84 / len(reports)
    for i, (report, series) in enumerate(zip(reports, bars, strict=True)):
        places = [group + (i - (len(reports) - 1) / 2) * width for group in range(len(series))]
        style: dict[str, Any] = {
            "color": COLORS[i % len(COLORS)],
            "hatch": _HATCHES[i // len(COLORS) % len(_HATCHES)],
            "edgecolor": "white",
            "linewidth": 0.6,
            "label": label(report.retriever),
        }
        draw = axes.barh if is_level else axes.bar
        draw(places, [value or 0.0 for value, _, _ in series], width, **style)
        for place, bar in zip(places, series, strict=True):
            _draw_end(axes, place, bar, is_level=is_level)
    return width


def _draw_end(axes: Axes, place: float, bar: _Bar, *, is_level: bool) -> None:
    """Draw the whisker of a bar, and the text beyond it."""
    value, interval, text = bar
    end = value or 0.0
    if interval is not None:
        low, high = interval
        end = max(end, high)
        along, across = (low, high), (place, place)
        axes.plot(*((along, across) if is_level else (across, along)), linewidth=0.9, color=DARK)
    axes.annotate(
        text,
        (end, place) if is_level else (place, end),
        xytext=(3, 0) if is_level else (0, 2),
        textcoords="offset points",
        ha="left" if is_level else "center",
        va="center" if is_level else "bottom",
        fontsize=7 if is_level else 8,
        color=DARK,
    )


def _about_whiskers(bars: Sequence[Sequence[_Bar]]) -> str:
    has_whiskers = any(interval is not None for series in bars for _, interval, _ in series)
    return "; whiskers: 95 % bootstrap confidence intervals" if has_whiskers else ""


def _curve_panel(
    axes: Axes,
    points: Sequence[tuple[int, float]],
    baselines: Mapping[str, float],
    measure: str,
    color: str,
) -> None:
    steps, values = zip(*points, strict=True)
    for i, (name, value) in enumerate(baselines.items()):
        axes.axhline(
            value,
            color=COLORS[i % len(COLORS)],
            linestyle=_DASHES[i % len(_DASHES)],
            linewidth=1.6,
            label=f"{label(name)} ({value:.4f})",
        )
    axes.plot(
        steps,
        values,
        color=color,
        marker="o",
        markersize=4,
        label=f"in training (last {values[-1]:.4f})",
    )
    axes.margins(x=0.04, y=0.1)
    axes.set_ylabel(f"{measure} (0 to 1)")
    axes.set_title(f"Evaluation {measure} during training")
    legend_beside(axes)


def _loss_panel(axes: Axes, losses: Sequence[tuple[int, float]], color: str) -> None:
    steps, values = zip(*losses, strict=True)
    window = min(101, max(3, len(values) // 40)) | 1
    axes.plot(steps, values, color=color, alpha=0.4, linewidth=0.7, label="each logged step")
    axes.plot(
        steps,
        running_median(values, window),
        color=color,
        linewidth=1.8,
        label=f"running median of {window}",
    )
    axes.set_ylabel("training loss (nats)")
    axes.set_title("Training loss")
    legend_beside(axes)


def _room(bars: Sequence[Sequence[_Bar]], factor: float) -> float:
    """Return the upper limit of an axis from zero that leaves room for the text beyond the bars."""
    ends = [value or 0.0 for series in bars for value, _, _ in series]
    ends += [interval[1] for series in bars for _, interval, _ in series if interval is not None]
    return factor * max(ends, default=0.0) or 1.0
