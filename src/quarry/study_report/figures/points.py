"""Points that stand for rows of a table, and one legend for all panels of a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quarry.evaluation.drawing import COLOURS, MARKERS, entries_below, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PALETTE = (*COLOURS, "#000000")  # as many as the study has models


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a row looks in every figure."""

    colour: str
    marker: str


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """A colour and a marker for each label, the same two for no two of 56."""
    return {
        label: Style(colour=PALETTE[i % len(PALETTE)], marker=MARKERS[i % len(MARKERS)])
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
    """A point with whiskers of its deviations along x and y, where there are any."""
    across, along = deviations
    axes.errorbar(
        [x],
        [y],
        xerr=across or None,
        yerr=along or None,
        linestyle="none",
        elinewidth=0.9,
        color=style.colour,
        marker=style.marker,
        markersize=7,
        label=label(name),
    )


def shared_legend(figure: Figure, used: Mapping[str, Style]) -> None:
    """One legend of all rows, whichever panels they are in, under the figure."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="none", color=each.colour, marker=each.marker, markersize=7)
        for each in used.values()
    ]
    entries_below(figure, handles, [label(name) for name in used])
