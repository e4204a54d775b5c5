"""Test differences between retrievers for significance: randomization tests, Holm's correction.

The queries are the sample. Both retrievers answer every query, so values are compared in pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_PERMUTATIONS = 20_000
NUM_SIGNS_AT_A_TIME = 2**22
"""Limits memory to about 50 MiB, whatever the number of queries."""

_ROUNDING = 1e-9
"""Tolerance of a statistic, relative to the sum of its parts: summation order must not matter."""


def randomization_p_values(
    differences: NDArray[np.float64],
    *,
    weights: NDArray[np.float64] | None = None,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return two-sided p-values of paired randomization tests, one per column of `differences`.

    Under the null hypothesis a query's two values are exchangeable, so each difference has a random
    sign. The p-value is the share of sign assignments whose weighted sum of differences is at least
    as far from 0 as the observed one (Fisher 1935; for retrieval Smucker, Allan and Carterette
    2007, "A Comparison of Statistical Significance Tests for Information Retrieval Evaluation", who
    recommend it over Wilcoxon's and the sign test).

    With n queries whose difference is not 0 and 2^n at most `num_permutations`, all sign
    assignments are counted and the p-value is exact. Otherwise m = `num_permutations` are drawn,
    the same for all columns. The observed one counts among them: (b + 1) / (m + 1), where b of the
    draws are as far from 0. That never claims more than m draws can tell (Phipson and Smyth 2010).

    With queries of several sets, weights of 1 / (number of sets x queries of the set) make the sum
    the difference of unweighted means over sets. Signs then change within each set, so the test is
    stratified: it never compares queries of different sets.

    Args:
        differences: [num_queries, num_comparisons], value minus value of the other retriever.
        weights: [num_queries], above 0; None: all equal.
        num_permutations: sign assignments at most.
        seed: of the random draws.

    Returns:
        [num_comparisons], in (0, 1]; 1 where no query differs.
    """
    assert differences.ndim == 2, differences.shape
    weighted = differences if weights is None else differences * weights[:, None]
    observed = np.abs(weighted.sum(axis=0))
    bounds = observed - _ROUNDING * np.abs(weighted).sum(axis=0)
    num_different = (differences != 0).sum(axis=0)
    is_exact = num_different <= np.log2(num_permutations)
    p_values = np.ones(differences.shape[1])
    for column in np.flatnonzero(is_exact):
        parts = weighted[differences[:, column] != 0, column]
        p_values[column] = _exact(parts, bounds[column])
    drawn = ~is_exact
    if drawn.any():
        counts = _count_drawn(weighted[:, drawn], bounds[drawn], num_permutations, seed)
        p_values[drawn] = (counts + 1) / (num_permutations + 1)
    return p_values


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values corrected for multiple comparisons by Holm's method.

    Comparing each with alpha keeps the chance of any false positive among all of them below alpha,
    whatever their dependence. The smallest of m is multiplied by m, the next by m - 1, and so on;
    none may be below one before it (Holm 1979, "A Simple Sequentially Rejective Multiple Test
    Procedure").

    Args:
        p_values: [num_comparisons].

    Returns:
        [num_comparisons], in the same order, at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected


def _exact(parts: NDArray[np.float64], bound: float) -> float:
    """Return the share of sign assignments of `parts` [n] with a sum at least `bound` from 0."""
    tosses = np.arange(2 ** len(parts))[:, None] >> np.arange(len(parts)) & 1
    sums = np.abs((1.0 - 2.0 * tosses) @ parts)
    return float((sums >= bound).mean())


def _count_drawn(
    weighted: NDArray[np.float64],
    bounds: NDArray[np.float64],
    num_permutations: int,
    seed: int,
) -> NDArray[np.int64]:
    """Count the drawn sign assignments that reach the bound, [num_comparisons]."""
    num_queries = len(weighted)
    num_bytes = -(-num_queries // 8)
    totals = weighted.sum(axis=0)
    rng = np.random.default_rng(seed)
    size = max(1, NUM_SIGNS_AT_A_TIME // num_queries)
    counts = np.zeros(len(bounds), dtype=np.int64)
    for start in range(0, num_permutations, size):
        num_rows = min(size, num_permutations - start)
        drawn = rng.integers(256, size=(num_rows, num_bytes), dtype=np.uint8)
        is_flipped = np.unpackbits(drawn, axis=1, count=num_queries).astype(np.float64)
        counts += (np.abs(totals - 2.0 * (is_flipped @ weighted)) >= bounds).sum(axis=0)
    return counts
