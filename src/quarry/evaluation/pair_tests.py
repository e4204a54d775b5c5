"""Run paired significance tests between systems of a report, on each set and on the mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from quarry.errors import UserError
from quarry.evaluation.rows import Row, failed_rows, result_of, rows_of
from quarry.evaluation.significance_test import SignificanceTest, refuse_too_few_permutations
from quarry.metrics.significance import holm, randomization_p_values
from quarry.types import Report

MEAN = "mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class PairTest:
    """Significance test of two systems on a set, a group of sets, or the mean over all rows.

    Attributes:
        first, second: names of the systems.
        where: name of the set or group, or `MEAN`.
        difference: value of `first` minus value of `second`, over the queries that both have.
        p_value: two-sided p-value of the paired randomization test.
        corrected: p-value after Holm's correction for all tests of the report.
        is_significant: whether the corrected p-value is at most alpha.
        num_queries: number of compared queries.
    """

    first: str
    second: str
    where: str
    difference: float
    p_value: float
    corrected: float
    is_significant: bool
    num_queries: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    first: str
    second: str
    where: str
    differences: NDArray[np.float64]
    weights: NDArray[np.float64]


def paired_tests(
    reports: Sequence[Report], *, measure: str, test: SignificanceTest, base: str | None
) -> list[PairTest]:
    """Test all pairs of reports, or all against one, over the queries that both have values of.

    Signs are flipped within each set, and sets have their weights in the mean. All p-values are
    corrected together (Holm). The mean is over the rows on which no report failed.

    Args:
        base: name of the report that the others are compared with; None: all pairs.

    Raises:
        UserError: there is no report `base`, or there are too few permutations for so many tests.
    """
    names = [report.retriever for report in reports]
    if base is not None and base not in names:
        raise UserError(
            f"task.base={base}: there is no such system (there are {', '.join(names)}). Fix: name "
            "one of them, or leave it out."
        )
    pairs = list(_pairs(reports, measure, base))
    refuse_too_few_permutations(len(pairs), test)
    p_values = _p_values(pairs, test)
    corrected = holm(np.array(p_values))
    return [
        PairTest(
            first=pair.first,
            second=pair.second,
            where=pair.where,
            difference=float((pair.differences * pair.weights).sum()),
            p_value=p_value,
            corrected=float(value),
            is_significant=bool(value <= test.alpha),
            num_queries=len(pair.differences),
        )
        for pair, p_value, value in zip(pairs, p_values, corrected, strict=True)
    ]


def _pairs(reports: Sequence[Report], measure: str, base: str | None) -> Iterator[_Pair]:
    rows = rows_of(reports)
    targets = [(row.name, [row]) for row in rows]
    counted = [row for row in rows if row not in failed_rows(reports, rows)]
    if len(counted) > 1:
        targets.append((MEAN, counted))
    for where, parts in targets:
        for first, second in combinations(reports, 2):
            if base in (None, first.retriever, second.retriever):
                ordered = (second, first) if first.retriever == base else (first, second)
                if (pair := _pair(*ordered, where, parts, measure)) is not None:
                    yield pair


def _pair(
    first: Report, second: Report, where: str, rows: Sequence[Row], measure: str
) -> _Pair | None:
    """Return per-query differences and weights; None if a set lacks values of one report."""
    differences: list[float] = []
    weights: list[float] = []
    for row in rows:
        for name in row.sets:
            results = result_of(first, name), result_of(second, name)
            ours, theirs = ({} if r is None else r.per_query.get(measure, {}) for r in results)
            shared = sorted(ours.keys() & theirs.keys())
            if not shared:
                return None
            differences += [ours[query_id] - theirs[query_id] for query_id in shared]
            weights += [1 / (len(rows) * len(row.sets) * len(shared))] * len(shared)
    return _Pair(
        first=first.retriever,
        second=second.retriever,
        where=where,
        differences=np.array(differences),
        weights=np.array(weights),
    )


def _p_values(pairs: Sequence[_Pair], test: SignificanceTest) -> list[float]:
    """Return the p-value of each pair; pairs with the same weights share the random sign flips."""
    batches: dict[bytes, list[int]] = {}
    for index, pair in enumerate(pairs):
        batches.setdefault(pair.weights.tobytes(), []).append(index)
    found: dict[int, float] = {}
    for indices in batches.values():
        p_values = randomization_p_values(
            np.stack([pairs[index].differences for index in indices], axis=1),
            weights=pairs[indices[0]].weights,
            num_permutations=test.num_permutations,
            seed=test.seed,
        )
        found |= dict(zip(indices, map(float, p_values), strict=True))
    return [found[index] for index in range(len(pairs))]
