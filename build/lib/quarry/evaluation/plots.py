"""Pictures of the reports, beside the tables in a run directory: bars, and the learning curve.

matplotlib is slow to import and only needed here, so the functions import it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quarry.errors import UserError
from quarry.evaluation.report import (
    MEASURES,
    mean_of,
    printable,
    set_names,
    shown_measures,
    value_of,
)
from quarry.runtime.files import replacing
from quarry.types import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008), "Color Universal Design", without yellow, which is faint on white.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666")
_HATCHES = ("", "///", "...", "xxx")  # the second, third and fourth time round the colours
_DASHES = ((0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)), (0, (1, 1)))
_DPI = 150
_NAME_WIDTH = 34  # characters a line in labels
_GREY = "#555555"


def plot_bars(reports: Sequence[Report], path: Path, *, measures: Sequence[str] = MEASURES) -> None:
    """Draw the results as bars into the PNG `path`, whose folder may be new.

    One set: a group of upright bars for each measure. Several sets: a group of level bars for
    each set and the mean, by the main measure, `measures[0]`. What was not measured reads "n/a".

    Raises:
        UserError: no retriever has a value of any of `measures`.
    """
    shown = shown_measures(reports, measures)
    names = set_names(reports)
    if len(names) == 1:
        _bars_of_one_set(reports, names[0], shown, path)
    else:
        _bars_of_sets(reports, names, shown[0], path)


def plot_learning_curve(
    points: Sequence[tuple[int, float]],
    path: Path,
    *,
    baselines: Mapping[str, float],
    losses: Sequence[tuple[int, float]] = (),
    measure: str = "nDCG@10",
) -> None:
    """Draw evaluation results against training steps into the PNG `path`.

    Args:
        points: (step, value of `measure`), at least one, in any order.
        baselines: name -> value of `measure`, drawn as dashed lines; may be empty.
        losses: (step, training loss); if there are any, a second panel shows them with their
            running median.

    Raises:
        UserError: there are no points.
    """
    from matplotlib.ticker import MaxNLocator

    if not points:
        raise UserError(
            f"{path}: no evaluation was made during training, so there is no learning curve to "
            "draw. Evaluate at least once during training."
        )
    figure = _figure(9.0, 6.8 if losses else 4.4)
    rows = figure.subplots(2 if losses else 1, 1, sharex=True, squeeze=False)
    panels: list[Axes] = [row[0] for row in rows]
    # After the baselines, as in the bars of the usual reports: bm25, untrained, trained.
    colour = _COLOURS[len(baselines) % len(_COLOURS)]
    _curve_panel(panels[0], sorted(points), baselines, measure, colour)
    if losses:
        _loss_panel(panels[1], sorted(losses), colour)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    panels[-1].set_xlabel("training step (optimiser updates)")
    _save(figure, path)


def running_median(values: Sequence[float], window: int) -> np.ndarray:
    """Centred running median over an odd `window`, which shrinks evenly towards both ends."""
    assert window % 2 == 1, window
    array = np.asarray(values, dtype=np.float64)
    half = [min(window // 2, i, len(array) - 1 - i) for i in range(len(array))]
    return np.array([np.median(array[i - h : i + h + 1]) for i, h in enumerate(half)])


def _bars_of_one_set(
    reports: Sequence[Report], name: str, measures: Sequence[str], path: Path
) -> None:
    num_bars = len(measures) * len(reports)
    figure = _figure(max(6.4, 1.8 + 0.62 * num_bars), 4.6)
    axes = figure.subplots()
    values = [[value_of(report, name, measure) for measure in measures] for report in reports]
    width = _draw_bars(axes, reports, values, is_level=False)
    axes.set_xticks(range(len(measures)), [_label(measure) for measure in measures])
    axes.set_xlim(-0.5 - width / 2, len(measures) - 0.5 + width / 2)
    axes.set_ylim(0, _room(values, 1.1))
    axes.set_ylabel("mean over the queries (0 to 1)")
    axes.set_xlabel("measure")
    axes.tick_params(axis="x", length=0)
    axes.set_title(_wrapped(f"Retrieval quality on {name}", 70))
    _legend_below(figure, axes)
    _save(figure, path)


def _bars_of_sets(
    reports: Sequence[Report], names: Sequence[str], measure: str, path: Path
) -> None:
    rows = [*names, "mean"]
    values = [
        [*(value_of(report, name, measure) for name in names), mean_of(report, names, measure)]
        for report in reports
    ]
    figure = _figure(8.0, 1.8 + len(rows) * (0.16 + 0.17 * len(reports)))
    axes = figure.subplots()
    _draw_bars(axes, reports, values, is_level=True)
    labels = [_label(name) for name in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.axhline(len(rows) - 1.5, color=_GREY, linewidth=0.8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, _room(values, 1.1))
    axes.set_xlabel(f"{measure}, mean over the queries (0 to 1)")
    axes.set_ylabel("set")
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"{measure} of each set and their mean")
    _legend_below(figure, axes)
    _save(figure, path)


def _draw_bars(
    axes: Axes,
    reports: Sequence[Report],
    values: Sequence[Sequence[float | None]],
    *,
    is_level: bool,
) -> float:
    """Draw a series of bars per report, each with its value; returns how wide a bar is."""
    width = 0.84 / len(reports)
    for i, (report, series) in enumerate(zip(reports, values, strict=True)):
        places = [group + (i - (len(reports) - 1) / 2) * width for group in range(len(series))]
        heights = [0.0 if value is None else value for value in series]
        style: dict[str, Any] = {
            "color": _COLOURS[i % len(_COLOURS)],
            "hatch": _HATCHES[i // len(_COLOURS) % len(_HATCHES)],
            "edgecolor": "white",
            "linewidth": 0.6,
            "label": _label(report.retriever),
        }
        draw = axes.barh if is_level else axes.bar
        bars = draw(places, heights, width, **style)
        labels = ["n/a" if value is None else f"{value:.4f}" for value in series]
        axes.bar_label(bars, labels, padding=2, fontsize=7 if is_level else 8, color="#222222")
    return width


def _curve_panel(
    axes: Axes,
    points: Sequence[tuple[int, float]],
    baselines: Mapping[str, float],
    measure: str,
    colour: str,
) -> None:
    steps, values = zip(*points, strict=True)
    for i, (name, value) in enumerate(baselines.items()):
        axes.axhline(
            value,
            color=_COLOURS[i % len(_COLOURS)],
            linestyle=_DASHES[i % len(_DASHES)],
            linewidth=1.6,
            label=f"{_label(name)} ({value:.4f})",
        )
    axes.plot(
        steps,
        values,
        color=colour,
        marker="o",
        markersize=4,
        label=f"in training (last {values[-1]:.4f})",
    )
    axes.margins(x=0.04, y=0.1)
    axes.set_ylabel(f"{measure} (0 to 1)")
    axes.set_title(f"Evaluation {measure} during training")
    _legend_beside(axes)


def _loss_panel(axes: Axes, losses: Sequence[tuple[int, float]], colour: str) -> None:
    steps, values = zip(*losses, strict=True)
    window = min(101, max(3, len(values) // 40)) | 1
    axes.plot(steps, values, color=colour, alpha=0.4, linewidth=0.7, label="each logged step")
    axes.plot(
        steps,
        running_median(values, window),
        color=colour,
        linewidth=1.8,
        label=f"running median of {window}",
    )
    axes.set_ylabel("training loss (nats)")
    axes.set_title("Training loss")
    _legend_beside(axes)


def _figure(width: float, height: float) -> Figure:
    # Without pyplot: no window system, no global state, and nothing to close.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=_DPI)


def _room(values: Sequence[Sequence[float | None]], factor: float) -> float:
    """Upper limit of an axis from zero that leaves room for the labels of the bars."""
    highest = max((v for series in values for v in series if v is not None), default=0.0)
    return factor * highest or 1.0


def _wrapped(text: str, width: int) -> str:
    """`text` on at most three lines; to matplotlib, a bare dollar sign begins mathematics."""
    lines = textwrap.wrap(printable(text), width, max_lines=3, placeholder="…")
    return "\n".join(lines).replace("$", r"\$")


def _label(name: str) -> str:
    wrapped = _wrapped(name, _NAME_WIDTH)
    # A legend leaves out labels that begin with an underscore; a zero-width space keeps them in.
    return f"\u200b{wrapped}" if wrapped.startswith("_") else wrapped


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    longest = max(len(line) for label in labels for line in label.splitlines())
    num_columns = int(figure.get_figwidth() / (0.7 + 0.075 * longest))
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=max(1, min(num_columns, len(labels))),
        frameon=False,
        fontsize=9,
    )


def _legend_beside(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
