"""Plot two retrievers against each other query by query, which shows more than their means."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quarry.evaluation.drawing import COLORS, GRAY, figure_of, save, wrapped
from quarry.evaluation.rows import result_of
from quarry.types import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 12
_NUM_COLUMNS = 4
_GRID = 50  # values are rounded to 1 / 50, so that queries at the same place make one larger point


def plot_scatter(baseline: Report, model: Report, path: Path, *, measure: str) -> list[str]:
    """Draw each query's `measure` of two retrievers into the PNG `path`, a panel a set.

    Points grow with the number of their queries. Above the diagonal the model is better; a panel's
    title counts the queries where it is better, equal and worse.

    Args:
        baseline, model: reports with per-query values; sets that both have are drawn.
        measure: a report name.

    Returns:
        The drawn sets, at most twelve: of more, those whose means differ most. Empty, and nothing
        is written, if no set has values of both.
    """
    pairs = _pairs(baseline, model, measure)
    if not pairs:
        return []
    by_difference = sorted(pairs, key=lambda name: -abs(float(np.diff(pairs[name]).mean())))
    chosen = set(by_difference[:MAX_PANELS])
    names = [name for name in pairs if name in chosen]
    columns = min(len(names), _NUM_COLUMNS)
    lines = math.ceil(len(names) / columns)
    figure = figure_of(max(5.0, 3.1 * columns + 0.6), 3.4 * lines + 1.0)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        _panel(axes, name, pairs[name])
    for axes in panels[len(names) :]:
        axes.remove()
    title = f"{measure} of each query: {model.retriever} against {baseline.retriever}"
    if len(names) < len(pairs):
        title += f" ({len(names)} of {len(pairs)} sets, where the means differ most)"
    figure.suptitle(wrapped(title, 30 * columns + 20), fontsize=11)
    legend = "larger points: more queries; cross: the means"
    figure.supxlabel(f"{wrapped(f'{baseline.retriever} (0 to 1)', 40)}\n{legend}", fontsize=9)
    figure.supylabel(wrapped(f"{model.retriever} (0 to 1)", 40), fontsize=9)
    save(figure, path)
    return names


def counts(pairs: NDArray[np.float64]) -> tuple[int, int, int]:
    """Count the queries whose second value is higher, equal (to 1e-9) and lower.

    Args:
        pairs: [num_queries, 2].
    """
    difference = pairs[:, 1] - pairs[:, 0]
    better, worse = int((difference > 1e-9).sum()), int((difference < -1e-9).sum())
    return better, len(pairs) - better - worse, worse


def _pairs(baseline: Report, model: Report, measure: str) -> dict[str, NDArray[np.float64]]:
    """Return set -> [num_queries, 2], values of the queries that both reports have."""
    found = {}
    for result in model.results:
        other = result_of(baseline, result.name)
        theirs = {} if other is None else other.per_query.get(measure, {})
        ours = result.per_query.get(measure, {})
        rows = [(theirs[query_id], value) for query_id, value in ours.items() if query_id in theirs]
        if rows:
            found[result.name] = np.array(rows, dtype=np.float64)
    return found


def _panel(axes: Axes, name: str, pairs: NDArray[np.float64]) -> None:
    places, numbers = np.unique(np.round(pairs * _GRID) / _GRID, axis=0, return_counts=True)
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle="--", zorder=1)
    axes.scatter(
        places[:, 0],
        places[:, 1],
        s=_areas(numbers),
        color=COLORS[0],
        alpha=0.55,
        linewidths=0,
        zorder=2,
        clip_on=False,
    )
    axes.plot(*pairs.mean(axis=0), marker="+", color=COLORS[5], markersize=12, mew=2, zorder=3)
    better, equal, worse = counts(pairs)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    # in the title, since points may lie anywhere in the panel
    numbers_line = f"better {better:,} · equal {equal:,} · worse {worse:,}"
    axes.set_title(f"{wrapped(name, 30)}\n{len(pairs):,} queries\n{numbers_line}", fontsize=9)


def _areas(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return marker areas in square points; sublinear, so that a single query stays visible."""
    areas: NDArray[np.float64] = np.minimum(14.0 * numbers**0.7, 600.0)
    return areas
