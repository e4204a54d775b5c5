"""Measure how many of the truly best documents an index finds, and how long a query takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quarry.runtime.progress import tracked
from quarry.search.search_index import SearchIndex

CUTOFFS = (10, 100)
SEED = 0

Found = tuple[NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class RecallQueries:
    """Queries of the measured recall.

    Attributes:
        vectors: [num_queries, dim].
        source: where they come from.
    """

    vectors: NDArray[np.float32]
    source: str


def measured_recall(
    index: SearchIndex, queries: RecallQueries | None, *, num_queries: int
) -> Mapping[str, Any]:
    """Return recall@10 and @100 against exact search, and the median time of a query.

    Recall@k is the share of the exact best k that is among the k found, mean over queries. Of
    exact search it is 1, and only the time is measured.

    Args:
        queries: None: documents of the corpus, drawn at random; each is left out of its own
            results, where any index finds it.
        num_queries: number of these documents; 0: nothing is measured.
    """
    own: NDArray[np.int64] | None = None
    if queries is None:
        count = min(num_queries, len(index) - 1)
        if count < 1:
            return {}
        own = np.sort(np.random.default_rng(SEED).choice(len(index), count, replace=False))
        queries = RecallQueries(vectors=index.vectors(own), source="documents of the corpus")
    spare = 0 if own is None else 1
    depth = min(max(CUTOFFS) + spare, len(index))
    found, seconds = _timed(index.search, queries.vectors, depth)
    is_exact = index.manifest.index["kind"] == "exact"
    exact = found if is_exact else index.search_exactly(queries.vectors, depth)[0]
    result: dict[str, Any] = {
        f"recall@{cutoff}": _recall(exact, found, own, cutoff=cutoff) for cutoff in CUTOFFS
    }
    return result | {
        "num_queries": len(queries.vectors),
        "queries": queries.source,
        "median_ms": round(1000 * float(np.median(seconds)), 3),
    }


def _timed(
    search: Callable[[NDArray[np.float32], int], Found], vectors: NDArray[np.float32], depth: int
) -> tuple[NDArray[np.int64], list[float]]:
    """Return the rows that are found for each query, searched one by one, and the times."""
    rows, seconds = [], []
    search(vectors[:1], depth)  # reads the files
    for number in tracked(range(len(vectors)), label="recall", units="queries"):
        start = time.perf_counter()
        rows.append(search(vectors[number : number + 1], depth)[0][0])
        seconds.append(time.perf_counter() - start)
    return np.stack(rows), seconds


def _recall(
    exact: NDArray[np.int64],
    found: NDArray[np.int64],
    own: NDArray[np.int64] | None,
    *,
    cutoff: int,
) -> float:
    shares = []
    for number, (best, rows) in enumerate(zip(exact, found, strict=True)):
        left_out = -1 if own is None else own[number]
        wanted = best[best != left_out][:cutoff]
        shares.append(len(np.intersect1d(wanted, rows[rows != left_out][:cutoff])) / len(wanted))
    return round(float(np.mean(shares)), 4)
