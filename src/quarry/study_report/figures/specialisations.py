"""Plot the mean quality of each specialization's models, with confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from quarry.evaluation.drawing import (
    COLORS,
    DARK,
    GRAY,
    figure_of,
    label,
    legend_below,
    save_with_pdf,
    wrapped,
)
from quarry.metrics.bootstrap import stratified_interval
from quarry.study_report.comparisons import mean_per_query, set_weights
from quarry.study_report.entries import Entry
from quarry.study_report.table import StudyTable, summary_cell, summary_columns, summary_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("--", ":", "-.")


@dataclass(frozen=True, kw_only=True)
class Specialisation:
    """One bar: the mean over the models of a specialization.

    Attributes:
        name: name of the specialization, or of a model that belongs to none.
        num_models: number of models with a value, over which the mean is taken.
        num_missing: number of models without a value.
        value: mean of the models' `summary_cell`; None: all are missing.
        interval: 95 % bootstrap confidence interval over the queries; None without per-query
            values.
    """

    name: str
    num_models: int
    num_missing: int
    value: float | None
    interval: tuple[float, float] | None

    @property
    def label(self) -> str:
        """Return the name; with several models, also their number."""
        total = self.num_models + self.num_missing
        if total == 1:
            return self.name
        of = f"{self.num_models} of {total}" if self.num_missing else str(total)
        return f"{self.name} (mean of {of})"


def specialisations_of(
    table: StudyTable, members: Mapping[str, Sequence[str]]
) -> list[Specialisation]:
    """Return bars of specializations with a model in the table, then bars of other models.

    Rows of one model under several configurations are in separate bars, never in one mean.

    Args:
        members: specialization -> names of models.
    """
    entries = table.models
    variants = dict.fromkeys(entry.variant for entry in entries)
    groups: dict[str, list[Entry]] = {}
    for name, models in members.items():
        for variant in variants:
            same = [e for e in entries if e.name in models and e.variant == variant]
            groups[", ".join(part for part in (name, variant) if part)] = same
    known = [id(entry) for group in groups.values() for entry in group]
    groups |= {entry.label: [entry] for entry in entries if id(entry) not in known}
    return [_bar(table, name, group) for name, group in groups.items() if group]


def _bar(table: StudyTable, name: str, group: Sequence[Entry]) -> Specialisation:
    present = [entry for entry in group if summary_cell(table, entry).value is not None]
    values = [summary_cell(table, entry).value or 0.0 for entry in present]
    return Specialisation(
        name=name,
        num_models=len(present),
        num_missing=len(group) - len(present),
        value=fmean(values) if values else None,
        interval=_interval(table, present) if present else None,
    )


def plot_specialisations(
    table: StudyTable, members: Mapping[str, Sequence[str]], path: Path
) -> tuple[Path, ...]:
    """Draw a bar for each specialization into the PNG `path` and a PDF beside it; return both.

    Baselines are lines. With fewer than two bars nothing is drawn.
    """
    bars = specialisations_of(table, members)
    if sum(bar.value is not None for bar in bars) < 2:
        return ()
    figure = figure_of(7.4, 1.7 + 0.42 * len(bars))
    axes = figure.subplots()
    ends = [_draw_bar(axes, place, bar) for place, bar in enumerate(bars)]
    ends += _draw_baselines(axes, table)
    axes.set_yticks(range(len(bars)), [label(bar.label) for bar in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 1.13 * max(ends) or 1.0)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("whiskers: 95 % bootstrap confidence intervals over the queries", fontsize=9)
    axes.set_title(wrapped(summary_label(table), 70), fontsize=10)
    if axes.get_legend_handles_labels()[1]:
        legend_below(figure, axes)
    return save_with_pdf(figure, path)


def _draw_bar(axes: Axes, place: int, bar: Specialisation) -> float:
    """Draw a bar and its whisker; return the value at which they end."""
    value = bar.value or 0.0
    axes.barh(place, value, 0.62, color=COLORS[0])
    end = value
    if bar.interval is not None:
        end = max(value, bar.interval[1])
        axes.plot(bar.interval, (place, place), color=DARK, linewidth=1.2)
    axes.annotate(
        "missing" if bar.value is None else f"{value:.4f}",
        (end, place),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=DARK,
        bbox={"facecolor": "white", "linewidth": 0, "pad": 1},
        zorder=4,
    )
    return end


def _draw_baselines(axes: Axes, table: StudyTable) -> list[float]:
    """Draw baselines as lines; return their values."""
    values: list[float] = []
    for entry in table.entries:
        value = summary_cell(table, entry).value
        if entry.stage == "baseline" and value is not None:
            style = _DASHES[len(values) % len(_DASHES)]
            name = f"{label(entry.label)} ({value:.4f})"
            axes.axvline(value, color=GRAY, linewidth=1.4, linestyle=style, label=name)
            values.append(value)
    return values


def _interval(table: StudyTable, group: Sequence[Entry]) -> tuple[float, float] | None:
    """Bootstrap the mean over models, resampling queries within each set.

    A query's value is its mean over the models. Return None if the models share no query of a set.
    """
    strata, weights = [], []
    for name, measure, share in set_weights(summary_columns(table)):
        values = [mean_per_query(entry, name, measure) for entry in group]
        shared = [query_id for query_id in values[0] if all(query_id in each for each in values)]
        if not shared:
            return None
        strata.append(np.array([fmean(each[query_id] for each in values) for query_id in shared]))
        weights.append(share)
    return stratified_interval(strata, weights=weights)
