"""Plot a table, models by sets, as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quarry.evaluation.drawing import DARK, figure_of, label, save_with_pdf, wrapped
from quarry.study_report.grid import MEAN
from quarry.study_report.table import StudyTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOR_MAP = "cividis"  # perceptually uniform, and safe for color-blind readers
_DARK_TEXT_FROM = 0.5  # cells lighter than this share of the scale have dark text


def plot_heat_map(table: StudyTable, path: Path) -> tuple[Path, ...]:
    """Draw `table` into the PNG `path` and a PDF beside it; return both.

    Colors are scaled from the lowest to the highest model of each column, since sets (and perhaps
    baselines) differ more than models do. Missing values are white and read "-".

    Nothing is drawn of fewer than two models, whose cells would all have one color, or of a single
    set, where colors would say no more than the table.
    """
    if len(table.models or table.entries) < 2 or len({c.row for c in table.columns}) < 2:
        return ()
    values = np.array(
        [[np.nan if c.value is None else c.value for c in row] for row in table.cells]
    )
    num_rows, num_columns = values.shape
    names = [wrapped(entry.label, 30) for entry in table.entries]
    width = 1.0 + 0.075 * max(len(line) for name in names for line in name.split("\n"))
    figure = figure_of(width + max(0.62 * num_columns, 3.2), 2.1 + 0.36 * num_rows)
    axes = figure.subplots()
    lightness = scaled(values, [entry in table.models for entry in table.entries])
    image = axes.imshow(lightness, cmap=_COLOR_MAP, vmin=0, vmax=1, aspect="auto")
    _write_values(axes, values, lightness)
    columns = [
        c.row.label if len(table.measures) == 1 else f"{c.row.label}, {c.measure}"
        for c in table.columns
    ] + ([MEAN] if table.has_average else [])
    axes.set_xticks(range(num_columns), [label(name) for name in columns], rotation=40, ha="right")
    axes.set_yticks(range(num_rows), names)
    axes.tick_params(length=0, labelsize=8)
    for place in _borders(table):
        axes.axhline(place, color="white", linewidth=3)
    if table.has_average:
        axes.axvline(num_columns - 1.5, color="white", linewidth=3)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 1], fraction=0.03, pad=0.02)
    bar.ax.set_yticklabels(["lowest model\nof the column", "highest"], fontsize=8)
    bar.outline.set_visible(False)
    measure = f": {table.measures[0]}" if len(table.measures) == 1 else ""
    axes.set_title(wrapped(f"{table.title}{measure}", 60), fontsize=10)
    return save_with_pdf(figure, path)


def scaled(values: NDArray[np.float64], is_model: Sequence[bool]) -> NDArray[np.float64]:
    """Scale each column from 0 (its lowest model) to 1; clip rows that are no models.

    Values are 0.5 if all models are equal, and NaN if missing.
    """
    shown = values[np.array(is_model)] if any(is_model) else values
    result = np.full_like(values, np.nan)
    for index, column in enumerate(values.T):
        present = shown[:, index][~np.isnan(shown[:, index])]
        low, span = (present.min(), np.ptp(present)) if len(present) else (0.0, 0.0)
        result[:, index] = (
            (column - low) / span if span else np.where(np.isnan(column), np.nan, 0.5)
        )
    return np.clip(result, 0, 1)


def _write_values(axes: Axes, values: NDArray[np.float64], lightness: NDArray[np.float64]) -> None:
    for (row, column), value in np.ndenumerate(values):
        is_missing = np.isnan(value)
        is_light = is_missing or lightness[row, column] > _DARK_TEXT_FROM
        axes.text(
            column,
            row,
            "-" if is_missing else f"{value:.3f}",
            ha="center",
            va="center",
            fontsize=8,
            color=DARK if is_light else "white",
        )


def _borders(table: StudyTable) -> list[float]:
    """Return the y positions of borders between baselines, given rankings, and models."""
    stages = [entry.stage for entry in table.entries]
    return [i + 0.5 for i in range(len(stages) - 1) if stages[i] != stages[i + 1]]
