"""Compute bootstrap confidence intervals of means over queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2_000
NUM_DRAWS_AT_A_TIME = 2**22
"""Limits memory to a few dozen MiB, whatever the number of queries."""


def bootstrap_intervals(
    per_query: Mapping[str, Mapping[str, float]],
    *,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return percentile bootstrap confidence intervals of the means over queries.

    Each resample draws as many queries as there are, with replacement. The interval holds the
    middle `level` of the resampled means (Efron and Tibshirani 1993, "An Introduction to the
    Bootstrap", chapter 13; for retrieval Sakai 2006). It says how far another sample of queries
    could move the mean, not whether two systems differ: their values rise and fall together.

    The resamples depend on the number of queries and the seed alone, so all measures of a set
    and all retrievers on it see the same ones.

    Args:
        per_query: measure -> query id -> value. All measures have the same queries.
        level: share of the resampled means in the interval, above 0 and below 1.
        num_resamples: 2,000 locate the ends of a 95 % interval to about a twentieth of its width.
        seed: of the random draws.

    Returns:
        Measure -> (low, high); a measure without queries is left out.
    """
    assert 0 < level < 1, level
    measures = [measure for measure, values in per_query.items() if values]
    if not measures:
        return {}
    query_ids = sorted(per_query[measures[0]])
    values = np.array([[per_query[m][query_id] for m in measures] for query_id in query_ids])
    means = _resampled_means(values, num_resamples=num_resamples, seed=seed)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return {m: (float(low[i]), float(high[i])) for i, m in enumerate(measures)}


def stratified_interval(
    strata: Sequence[NDArray[np.float64]],
    *,
    weights: Sequence[float],
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a weighted sum of the means of several sets.

    Queries are drawn within each set, as many as it has, independently of the other sets.

    Args:
        strata: for each set the values of its queries, [num_queries], at least one.
        weights: one per set; 1 / number of sets gives the unweighted mean.
        level, num_resamples, seed: as in `bootstrap_intervals`.
    """
    means = sum(
        weight * _resampled_means(values[:, None], num_resamples=num_resamples, seed=[seed, i])
        for i, (values, weight) in enumerate(zip(strata, weights, strict=True))
    )
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _resampled_means(
    values: NDArray[np.float64], *, num_resamples: int, seed: int | Sequence[int]
) -> NDArray[np.float64]:
    """Return means [num_resamples, num_measures] of `values` [num_queries, num_measures]."""
    num_queries = len(values)
    rng = np.random.default_rng(seed)
    size = max(1, NUM_DRAWS_AT_A_TIME // num_queries)
    means = []
    for start in range(0, num_resamples, size):
        num_rows = min(size, num_resamples - start)
        drawn = rng.integers(num_queries, size=(num_rows, num_queries))
        drawn += np.arange(num_rows)[:, None] * num_queries
        # how often each query was drawn in each resample; then one product serves all measures
        counts = np.bincount(drawn.ravel(), minlength=num_rows * num_queries)
        means.append(counts.reshape(num_rows, num_queries).astype(np.float64) @ values)
    return np.concatenate(means) / num_queries
