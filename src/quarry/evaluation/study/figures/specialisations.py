"""What each specialisation of a model is worth: means over its models, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from quarry.evaluation.drawing import COLOURS, DARK, GREY, figure_of, label, save_with_pdf, wrapped
from quarry.evaluation.study.comparisons import mean_per_query, set_weights
from quarry.evaluation.study.entries import Entry
from quarry.evaluation.study.figures.summary import summary_cell, summary_columns, summary_label
from quarry.evaluation.study.table import StudyTable
from quarry.metrics.bootstrap import stratified_interval


@dataclass(frozen=True, kw_only=True)
class Specialisation:
    """A bar.

    Attributes:
        name: of the specialisation, or of a model that belongs to none.
        num_models: whose mean it is.
        value: mean over them of what the table's rows end in.
        interval: 95 %, bootstrapped over the queries; None without values per query.
    """

    name: str
    num_models: int
    value: float
    interval: tuple[float, float] | None


def specialisations_of(
    table: StudyTable, members: Mapping[str, Sequence[str]]
) -> list[Specialisation]:
    """Those that have a model in the table, in the order of `members`, then models of none.

    Rows of one model under several configurations are in several bars: no mean is over both.

    Args:
        members: specialisation -> names of models.
    """
    entries = [e for e in table.models if summary_cell(table, e).value is not None]
    variants = dict.fromkeys(entry.variant for entry in entries)
    groups: dict[str, list[Entry]] = {}
    for name, models in members.items():
        for variant in variants:
            same = [e for e in entries if e.name in models and e.variant == variant]
            groups[", ".join(part for part in (name, variant) if part)] = same
    known = [id(entry) for group in groups.values() for entry in group]
    groups |= {entry.label: [entry] for entry in entries if id(entry) not in known}
    return [
        Specialisation(
            name=name,
            num_models=len(group),
            value=fmean(summary_cell(table, e).value or 0.0 for e in group),
            interval=_interval(table, group),
        )
        for name, group in groups.items()
        if group
    ]


def plot_specialisations(
    table: StudyTable, members: Mapping[str, Sequence[str]], path: Path
) -> tuple[Path, ...]:
    """Draws a bar for each specialisation into the PNG `path` and a PDF beside it; returns both.

    Baselines are lines. Nothing is drawn for fewer than two bars.
    """
    bars = specialisations_of(table, members)
    if len(bars) < 2:
        return ()
    figure = figure_of(7.4, 1.7 + 0.42 * len(bars))
    axes = figure.subplots()
    places = range(len(bars))
    axes.barh(places, [bar.value for bar in bars], 0.62, color=COLOURS[0])
    for place, bar in zip(places, bars, strict=True):
        end = bar.value
        if bar.interval is not None:
            end = max(end, bar.interval[1])
            axes.plot(bar.interval, (place, place), color=DARK, linewidth=1.2)
        axes.annotate(
            f"{bar.value:.4f}",
            (end, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=DARK,
        )
    ends = [bar.interval[1] if bar.interval else bar.value for bar in bars]
    for number, entry in enumerate(e for e in table.entries if e.stage == "baseline"):
        value = summary_cell(table, entry).value
        if value is not None:
            ends.append(value)
            axes.axvline(
                value,
                color=GREY,
                linewidth=1.4,
                linestyle=("--", ":", "-.")[number % 3],
                label=f"{label(entry.label)} ({value:.4f})",
            )
    names = [b.name if b.num_models == 1 else f"{b.name} (mean of {b.num_models})" for b in bars]
    axes.set_yticks(places, [label(name) for name in names])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 1.13 * max(ends) or 1.0)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("whiskers: 95 % bootstrap intervals over the queries", fontsize=9)
    axes.set_title(wrapped(summary_label(table), 70), fontsize=10)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower center", frameon=False, fontsize=9, ncols=2)
    return save_with_pdf(figure, path)


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
