"""Plot two retrievers against each other query by query, which shows more than their means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quarry.evaluation.drawing import (
    COLORS,
    GRAY,
    entries_below,
    figure_of,
    label,
    legend_height,
    save,
    wrapped,
)
from quarry.evaluation.rows import result_of
from quarry.types import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MAX_PANELS = 12
_NUM_COLUMNS = 4
_GRID = 50  # values are rounded to 1 / 50, so that queries at the same place make one larger point
_TOLERANCE = 1e-9  # up to this difference two values are equal
_BETTER, _WORSE, _MEANS = COLORS[0], COLORS[1], COLORS[5]
_LIMITS = (-0.07, 1.07)  # points at 0 and 1 hide neither an axis nor its numbers

Pairs = NDArray[np.float64]
"""[num_queries, 2]: a query's value of the baseline and of the model."""


def plot_scatter(baseline: Report, model: Report, path: Path, *, measure: str) -> list[str]:
    """Draw each query's `measure` of two retrievers into the PNG `path`, a panel a set.

    Points above the diagonal are queries where the model is better. They have one color, those
    below another. Points grow with the number of their queries, and a panel's title counts them. A
    single set has a second panel: the histogram of the differences.

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
    names = _most_different(pairs)
    figure, panels = _figure(len(names), baseline.retriever, model.retriever)
    scatters = panels[: len(names)]
    for axes, name in zip(scatters, names, strict=True):
        _panel(axes, name, pairs[name])
    for axes in scatters[-_NUM_COLUMNS:]:  # nothing is below them
        axes.set_xlabel(_axis_title(baseline.retriever, measure), fontsize=9)
    for axes in scatters[::_NUM_COLUMNS]:
        axes.set_ylabel(_axis_title(model.retriever, measure), fontsize=9)
    if len(names) == 1:
        _histogram(panels[1], pairs[names[0]], (baseline.retriever, model.retriever), measure)
    title = f"{measure} of each query: {model.retriever} against {baseline.retriever}"
    if len(names) < len(pairs):
        title += f" ({len(names)} of {len(pairs)} sets, where the means differ most)"
    width = 30 * min(len(panels), _NUM_COLUMNS) + 20
    figure.suptitle(wrapped(title, width), fontsize=11)
    save(figure, path)
    return names


def _most_different(pairs: Mapping[str, Pairs]) -> list[str]:
    """Return at most twelve sets, those whose means differ most, in their order."""
    by_difference = sorted(pairs, key=lambda name: -abs(float(np.diff(pairs[name]).mean())))
    chosen = set(by_difference[:MAX_PANELS])
    return [name for name in pairs if name in chosen]


def _figure(num_sets: int, baseline: str, model: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with its legend, and a panel for each set; for a single set two panels."""
    num_panels = max(num_sets, 2)
    columns = min(num_panels, _NUM_COLUMNS)
    lines = math.ceil(num_panels / columns)
    size = 4.0 if num_sets == 1 else 3.1
    width = size * columns + 0.6
    entries = _legend_entries(baseline, model)
    labels = [str(entry.get_label()) for entry in entries]
    figure = figure_of(width, (size + 0.3) * lines + 0.6 + legend_height(width, labels))
    panels = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for axes in panels[num_panels:]:
        axes.remove()
    entries_below(figure, entries, labels)
    return figure, panels[:num_panels]


def counts(pairs: Pairs) -> tuple[int, int, int]:
    """Count the queries whose second value is higher, equal (to 1e-9) and lower.

    Args:
        pairs: [num_queries, 2].
    """
    difference = pairs[:, 1] - pairs[:, 0]
    better = int((difference > _TOLERANCE).sum())
    worse = int((difference < -_TOLERANCE).sum())
    return better, len(pairs) - better - worse, worse


def _pairs(baseline: Report, model: Report, measure: str) -> dict[str, Pairs]:
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


def _axis_title(name: str, measure: str) -> str:
    return f"{label(name)}\n{measure} (0 to 1)"


def _panel(axes: Axes, name: str, pairs: Pairs) -> None:
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle="--", zorder=1)
    for color, chosen in zip((_BETTER, GRAY, _WORSE), _by_outcome(pairs), strict=True):
        rounded = np.round(chosen * _GRID) / _GRID
        places, numbers = np.unique(rounded, axis=0, return_counts=True)
        x, y = places.T
        axes.scatter(x, y, s=_areas(numbers), color=color, alpha=0.55, linewidths=0, zorder=2)
    axes.plot(*pairs.mean(axis=0), marker="+", color=_MEANS, markersize=12, mew=2, zorder=3)
    axes.set(xlim=_LIMITS, ylim=_LIMITS, aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    # in the title, since points may lie anywhere in the panel
    better, _, worse = counts(pairs)
    outcome = f"better for {better:,}, worse for {worse:,} of {_queries(len(pairs))}"
    axes.set_title(f"{wrapped(name, 30)}\n{outcome}", fontsize=9)


def _by_outcome(pairs: Pairs) -> tuple[Pairs, Pairs, Pairs]:
    """Return the pairs of the queries where the model is better, equal and worse."""
    difference = pairs[:, 1] - pairs[:, 0]
    is_better, is_worse = difference > _TOLERANCE, difference < -_TOLERANCE
    return pairs[is_better], pairs[~is_better & ~is_worse], pairs[is_worse]


def _histogram(axes: Axes, pairs: Pairs, names: tuple[str, str], measure: str) -> None:
    """Draw how many queries differ by how much: ten bars to each side, and one of equal ones."""
    from matplotlib.ticker import MaxNLocator

    better, equal, worse = (np.diff(chosen).ravel() for chosen in _by_outcome(pairs))
    edges = np.linspace(0, 1, 11)
    for color, values, sign in ((_BETTER, better, 1), (_WORSE, -worse, -1)):
        numbers, _ = np.histogram(values, edges)
        axes.bar(sign * (edges[:-1] + 0.08), numbers, 0.09, color=color)  # beside the bar at 0
    axes.bar(0, len(equal), 0.05, color=GRAY)
    axes.set(xlim=(-1.08, 1.08), xticks=[-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel(wrapped(f"{names[1]} - {names[0]}, {measure}", 50), fontsize=9)
    axes.set_ylabel("queries", fontsize=9)
    mean = float(np.diff(pairs).mean())
    axes.axvline(mean, color=_MEANS, linewidth=1.2)
    axes.set_title(f"differences\nmean {mean:+.4f}, equal for {_queries(len(equal))}", fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def _legend_entries(baseline: str, model: str) -> list[Line2D]:
    from matplotlib.lines import Line2D

    points = [
        (_BETTER, f"{wrapped(model, 34)} better"),
        (_WORSE, f"{wrapped(baseline, 34)} better"),
        (GRAY, "equal (larger: more queries)"),
    ]
    return [
        *(Line2D([], [], linestyle="none", marker="o", color=c, label=text) for c, text in points),
        Line2D([], [], linestyle="none", marker="+", color=_MEANS, mew=2, label="means"),
    ]


def _queries(number: int) -> str:
    return f"{number:,} {'query' if number == 1 else 'queries'}"


def _areas(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return marker areas in square points; sublinear, so that a single query stays visible."""
    areas: NDArray[np.float64] = np.minimum(14.0 * numbers**0.7, 600.0)
    return areas
