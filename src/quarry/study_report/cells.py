"""Compute the cells of a study's tables: mean and deviation over seeds, or why it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from quarry.study_report.entries import Entry, Seed
from quarry.study_report.suites import Column


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Value of an entry in a column.

    Attributes:
        value: mean over the seeds that have a value; None: missing.
        deviation: sample standard deviation over the seeds; None for fewer than two.
        num_seeds: number of seeds with a value.
        reason: why the value, or that of some seeds, is missing; None: nothing is.
    """

    value: float | None
    deviation: float | None = None
    num_seeds: int = 0
    reason: str | None = None


def cell_of(entry: Entry, column: Column) -> Cell:
    """Return the cell of one column."""
    return _cell([seed_value(entry, seed, column) for seed in entry.seeds], entry, [column])


def average_of(entry: Entry, columns: Sequence[Column]) -> Cell:
    """Return the cell of the unweighted mean over columns, averaged within each seed first."""
    values = []
    for seed in entry.seeds:
        found = [seed_value(entry, seed, column) for column in columns]
        present = [value for value in found if value is not None]
        values.append(fmean(present) if len(present) == len(columns) else None)
    return _cell(values, entry, columns)


def seed_value(entry: Entry, seed: Seed, column: Column) -> float | None:
    """Return one seed's mean over the sets of a column; None unless each set has a value."""
    results = [entry.result(seed, name) for name in column.row.sets]
    values = [None if r is None else r.metrics.get(column.measure) for r in results]
    present = [value for value in values if value is not None]
    return fmean(present) if len(present) == len(values) else None


def _cell(values: Sequence[float | None], entry: Entry, columns: Sequence[Column]) -> Cell:
    present = [value for value in values if value is not None]
    reason = None if len(present) == len(values) else _reason(entry, columns)
    if present and reason:
        reason = f"{len(present)} of {len(values)} seeds; {reason}"
    return Cell(
        value=fmean(present) if present else None,
        deviation=stdev(present) if len(present) > 1 else None,
        num_seeds=len(present),
        reason=reason,
    )


def _reason(entry: Entry, columns: Sequence[Column]) -> str:
    for seed in entry.seeds:
        if seed in entry.unfinished:
            return entry.unfinished[seed]
        for column in columns:
            for name in column.row.sets:
                if (why := _reason_of_set(entry, seed, name, column)) is not None:
                    return why
    raise AssertionError("nothing is missing")


def _reason_of_set(entry: Entry, seed: Seed, name: str, column: Column) -> str | None:
    failure = entry.failures.get(seed, {}).get(name)
    if failure is not None:
        return f"{name} failed: {failure}"
    result = entry.result(seed, name)
    if result is None:
        return f"{name} was not evaluated"
    if column.measure not in result.metrics:
        return f"{name} has no {column.measure}, only {', '.join(result.metrics)}"
    return None
