"""What each specialisation of a model is worth: means over its models, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from quarry.evaluation.drawing import (
    COLOURS,
    DARK,
    GREY,
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
    """A bar.

    Attributes:
        name: of the specialisation, or of a model that belongs to none.
        num_models: whose mean it is; those without a value are not counted.
        num_missing: models without a value.
        value: mean over the models of what the table's rows end in; None: all are missing.
        interval: 95 %, bootstrapped over the queries; None without values per query.
    """

    name: str
    num_models: int
    num_missing: int
    value: float | None
    interval: tuple[float, float] | None

    @property
    def label(self) -> str:
        """The name, and whose mean it is where that is not plain."""
        total = self.num_models + self.num_missing
        if total == 1:
            return self.name
        of = f"{self.num_models} of {total}" if self.num_missing else str(total)
        return f"{self.name} (mean of {of})"


def specialisations_of(
    table: StudyTable, members: Mapping[str, Sequence[str]]
) -> list[Specialisation]:
    """Those that have a model in the table, in the order of `members`, then models of none.

    Rows of one model under several configurations are in several bars: no mean is over both.

    Args:
        members: specialisation -> names of models.
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
    """Draws a bar for each specialisation into the PNG `path` and a PDF beside it; returns both.

    Baselines are lines. Nothing is drawn for fewer than two bars.
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
    axes.set_xlabel("whiskers: 95 % bootstrap intervals over the queries", fontsize=9)
    axes.set_title(wrapped(summary_label(table), 70), fontsize=10)
    if axes.get_legend_handles_labels()[1]:
        legend_below(figure, axes)
    return save_with_pdf(figure, path)


def _draw_bar(axes: Axes, place: int, bar: Specialisation) -> float:
    """Returns where it ends, its whisker included."""
    value = bar.value or 0.0
    axes.barh(place, value, 0.62, color=COLOURS[0])
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
    """Lines; returns where they are."""
    values: list[float] = []
    for entry in table.entries:
        value = summary_cell(table, entry).value
        if entry.stage == "baseline" and value is not None:
            style = _DASHES[len(values) % len(_DASHES)]
            name = f"{label(entry.label)} ({value:.4f})"
            axes.axvline(value, color=GREY, linewidth=1.4, linestyle=style, label=name)
            values.append(value)
    return values


def _interval(table: StudyTable, group: Sequence[Entry]) -> tuple[float, float] | None:
    """Queries are drawn within each set; a query's value is the mean over the models."""
    strata, weights = [], []
    for name, measure, share in set_weights(summary_columns(table)):
        values = [mean_per_query(entry, name, measure) for entry in group]
        shared = [query_id for query_id in values[0] if all(query_id in each for each in values)]
        if not shared:
            return None
        strata.append(np.array([fmean(each[query_id] for each in values) for query_id in shared]))
        weights.append(share)
    return stratified_interval(strata, weights=weights)
