"""Draw points for rows of a table in consistent styles, with one legend for all panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quarry.evaluation.drawing import COLORS, MARKERS, entries_below, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PALETTE = (*COLORS, "#000000")  # as many as the study has models


@dataclass(frozen=True, kw_only=True)
class Style:
    """Color and marker of a row, the same in all panels of a figure."""

    color: str
    marker: str


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """Return a color and a marker for each label; the pairs are distinct for up to 56 labels."""
    return {
        label: Style(color=PALETTE[i % len(PALETTE)], marker=MARKERS[i % len(MARKERS)])
        for i, label in enumerate(labels)
    }


def draw_point(
    axes: Axes,
    x: float,
    y: float,
    *,
    style: Style,
    name: str,
    deviations: tuple[float | None, float | None] = (None, None),
) -> None:
    """Draw a point with whiskers for its deviations along x and y; None or 0: no whisker."""
    across, along = deviations
    axes.errorbar(
        [x],
        [y],
        xerr=across or None,
        yerr=along or None,
        linestyle="none",
        elinewidth=0.9,
        color=style.color,
        marker=style.marker,
        markersize=7,
        label=label(name),
    )


def shared_legend(figure: Figure, used: Mapping[str, Style]) -> None:
    """Add one legend of all rows, in any panel, below the figure."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="none", color=each.color, marker=each.marker, markersize=7)
        for each in used.values()
    ]
    entries_below(figure, handles, [label(name) for name in used])
