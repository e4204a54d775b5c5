"""Test the rows of a table for significant differences from the base row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from quarry.evaluation.significance_test import SignificanceTest, refuse_too_few_permutations
from quarry.metrics.significance import holm, randomization_p_values
from quarry.study_report.entries import Entry
from quarry.study_report.suites import Column

Values = Mapping[str, float]
"""Query id -> value."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Significance test of a row against the base in one column.

    Attributes:
        p_value: two-sided p-value of the paired randomization test.
        corrected: p-value after Holm's correction for all comparisons of the table.
        is_significant: whether the corrected p-value is at most alpha.
        num_queries: number of compared queries.
    """

    p_value: float
    corrected: float
    is_significant: bool
    num_queries: int


Place = tuple[int, int]
"""Row and column of a table."""


def compared(
    entries: Sequence[Entry],
    base: Entry,
    targets: Sequence[Sequence[Column]],
    test: SignificanceTest,
) -> dict[Place, Comparison]:
    """Test each entry against the base in each target, over the queries that both have.

    A target is one column, or all columns for their unweighted mean. A query's value is its mean
    over the seeds. In a group of sets and in a mean, signs are flipped within each set, and each
    set has its weight in the mean.

    Returns:
        (row, number of the target) -> comparison.

    Raises:
        UserError: there are too few permutations for any comparison to be significant.
    """
    found: dict[Place, tuple[float, int]] = {}
    for number, columns in enumerate(targets):
        found |= {
            (row, number): tested
            for row, tested in _column_tests(entries, base, columns, test).items()
        }
    if not found:
        return {}
    refuse_too_few_permutations(len(found), test)
    places = list(found)
    corrected = holm(np.array([found[place][0] for place in places]))
    return {
        place: Comparison(
            p_value=found[place][0],
            corrected=float(value),
            is_significant=bool(value <= test.alpha),
            num_queries=found[place][1],
        )
        for place, value in zip(places, corrected, strict=True)
    }


def mean_per_query(entry: Entry, set_name: str, measure: str) -> Values:
    """Return the per-query means over the seeds, for queries that every seed has."""
    results = [entry.result(seed, set_name) for seed in entry.seeds]
    found = [r.per_query[measure] for r in results if r is not None and measure in r.per_query]
    if not found:
        return {}
    shared = [query_id for query_id in found[0] if all(query_id in each for each in found)]
    return {query_id: fmean(each[query_id] for each in found) for query_id in shared}


def set_weights(columns: Sequence[Column]) -> list[tuple[str, str, float]]:
    """Return (set, measure, weight) of a mean over columns, each of which is a mean over sets."""
    return [
        (name, column.measure, 1 / (len(columns) * len(column.row.sets)))
        for column in columns
        for name in column.row.sets
    ]


def _column_tests(
    entries: Sequence[Entry], base: Entry, columns: Sequence[Column], test: SignificanceTest
) -> dict[int, tuple[float, int]]:
    """Return row -> (p-value, number of queries); rows with equal weights share the sign flips."""
    pairs: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for row, entry in enumerate(entries):
        if entry is not base and (pair := _differences(entry, base, columns)) is not None:
            pairs[row] = pair
    batches: dict[bytes, list[int]] = {}
    for row, (_, weights) in pairs.items():
        batches.setdefault(weights.tobytes(), []).append(row)
    found: dict[int, tuple[float, int]] = {}
    for rows in batches.values():
        weights = pairs[rows[0]][1]
        p_values = randomization_p_values(
            np.stack([pairs[row][0] for row in rows], axis=1),
            weights=weights,
            num_permutations=test.num_permutations,
            seed=test.seed,
        )
        found |= {row: (float(p), len(weights)) for row, p in zip(rows, p_values, strict=True)}
    return found


def _differences(
    entry: Entry, base: Entry, columns: Sequence[Column]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return per-query differences and weights over all sets; None if a set lacks values."""
    differences: list[float] = []
    weights: list[float] = []
    for name, measure, share in set_weights(columns):
        ours, theirs = (mean_per_query(each, name, measure) for each in (entry, base))
        shared = sorted(ours.keys() & theirs.keys())
        if not shared:
            return None
        differences += [ours[query_id] - theirs[query_id] for query_id in shared]
        weights += [share / len(shared)] * len(shared)
    return np.array(differences), np.array(weights)
