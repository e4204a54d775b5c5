"""Search a mapped matrix exactly: fast products choose candidates, and sums in fp64 rank those.

A bound on the error of the products decides which documents can be among the best, so the ranking
is that of the fp64 sums of all documents.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quarry.errors import UserError
from quarry.retrieval.index.exact import full_fp32
from quarry.retrieval.tie_breaking import NO_RANKING, top_k_by_score

logger = logging.getLogger(__name__)

Matrix = NDArray[np.float16] | NDArray[np.float32]

MOST_QUERIES_IN_HALF = 4
"""From five queries on, converting the documents once and multiplying matrices is faster."""

NUM_ROWS_PER_BLOCK = 2**18
NUM_ROWS_CONVERTED = 2**14
"""Rows that are converted to fp32 at a time: 64 MiB at 1,024 dimensions."""

NUM_BYTES_PER_RESCORING = 2**26
LARGEST_PRODUCT = 2.0**13
"""Queries are scaled so that no product in half precision exceeds it: fp16 ends at 65,504."""

HALF = 2.0**-11
SINGLE = 2.0**-24
"""Largest relative error of rounding to fp16 and to fp32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorBound:
    """Bound of a product's error: `fixed + relative * |product|`.

    Attributes:
        scale: power of two by which the products are larger than the scores.
    """

    fixed: float
    relative: float
    scale: float = 1.0

    def lowest_candidate(self, kth: float) -> float:
        """Return the least product that a document among the best k can have.

        Args:
            kth: the k-th best product. The k-th best score is at least this less its error.
        """
        low = kth - self.fixed - self.relative * abs(kth) - self.fixed
        return low / (1 + self.relative) if low >= 0 else low / (1 - self.relative)

    def holds(self, products: NDArray[np.float32], scores: NDArray[np.float32]) -> bool:
        """Return whether computed products are as near to the scores as this says."""
        wide = products.astype(np.float64)
        error = np.abs(wide - scores.astype(np.float64) * self.scale)
        return bool((error <= self.fixed + self.relative * np.abs(wide)).all())


def search_rows(
    *,
    queries: NDArray[np.float32],
    documents: Matrix,
    places: NDArray[np.int64],
    largest_norm: float,
    top_k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of the best documents of each query and their scores, best first.

    A score is the inner product, summed in fp64 in one order and rounded to fp32. So it depends on
    query and document alone: not on the other queries, the machine's BLAS or the place of the row.

    Args:
        queries: [num_queries, dim].
        documents: [num_documents, dim] finite, may be mapped from a file.
        places: [num_documents] places in `tie_order`: equal scores rank by document id descending.
        largest_norm: the largest Euclidean norm of a document, or more.
        top_k: documents a query; all if there are fewer.

    Returns:
        Both [num_queries, min(top_k, num_documents)].

    Raises:
        UserError: a query is not finite.
    """
    if not np.isfinite(queries).all():
        raise UserError(f"queries: {NO_RANKING}")
    assert len(documents) == len(places)
    assert queries.shape[1:] == documents.shape[1:]
    top_k = min(top_k, len(documents))
    rows = np.empty((len(queries), top_k), dtype=np.int64)
    scores = np.empty((len(queries), top_k), dtype=np.float32)
    is_half = documents.dtype == np.float16
    step = 1 if is_half and len(queries) <= MOST_QUERIES_IN_HALF else 64
    with torch.inference_mode():
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            found = _candidates(part, documents, top_k=top_k, largest_norm=largest_norm)
            for number, (chosen, exact) in enumerate(found, start=start):
                best = top_k_by_score(exact, places[chosen], k=top_k)
                rows[number], scores[number] = chosen[best], exact[best]
    return rows, scores


def exact_scores(
    query: NDArray[np.float32], documents: Matrix, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the scores of some documents, [num_rows]; see `search_rows`."""
    scores = np.empty(len(rows), dtype=np.float32)
    step = max(NUM_BYTES_PER_RESCORING // (8 * max(documents.shape[1], 1)), 1)
    wide = query.astype(np.float64)
    for start in range(0, len(rows), step):
        part = documents[rows[start : start + step]].astype(np.float64)
        # numpy sums each row pairwise in one order; a product by BLAS would depend on the shape
        scores[start : start + step] = np.multiply(part, wide, out=part).sum(axis=1)
    return scores


def _candidates(
    queries: NDArray[np.float32], documents: Matrix, *, top_k: int, largest_norm: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield for each query the rows that can be among its best, with their exact scores."""
    norms = np.linalg.norm(queries.astype(np.float64), axis=1)
    largest = float(norms.max()) * largest_norm
    if len(queries) == 1 and documents.dtype == np.float16:
        asked, bound = _halved(queries, largest=largest)
    else:
        asked, bound = torch.from_numpy(queries), _single_bound(queries.shape[1], largest=largest)
    chosen = [_Chosen(top_k, bound) for _ in queries]
    for start, block in _blocks_of_products(asked, documents):
        for one, values in zip(chosen, block, strict=True):
            one.add(values, start)
    for one, query in zip(chosen, queries, strict=True):
        rows, values = one.result()
        exact = exact_scores(query, documents, rows)
        if not bound.holds(values, exact):
            logger.warning(
                "Products in %s are less exact here than the search counts on: all documents are "
                "scored in fp64, which is slow", asked.dtype,
            )  # fmt: skip
            rows = np.arange(len(documents))
            exact = exact_scores(query, documents, rows)
        yield rows, exact


class _Chosen:
    """Documents that can be among the best of a query, as far as the products are known.

    numpy selects them: torch would wait for all its threads many times in a block, and long on a
    busy machine.
    """

    def __init__(self, top_k: int, bound: ErrorBound) -> None:
        self._top_k = top_k
        self._bound = bound
        self._best = np.empty(0, dtype=np.float32)
        self._floor = -math.inf
        self._found: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []

    def add(self, values: NDArray[np.float32], start: int) -> None:
        """Choose among the products of a block, whose first row is `start`."""
        columns = np.flatnonzero(values >= self._floor)
        if not len(columns):
            return
        kept = values[columns]
        best = np.concatenate([self._best, kept])
        if len(best) > self._top_k:
            best = np.partition(best, len(best) - self._top_k)[-self._top_k :]
        self._best = best
        if len(best) == self._top_k:
            lowest = np.float32(self._bound.lowest_candidate(float(best.min())))
            self._floor = float(np.nextafter(lowest, np.float32(-np.inf)))
        is_open = kept >= self._floor
        self._found.append((columns[is_open] + start, kept[is_open]))

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and products of the documents that can still be among the best."""
        rows, values = (np.concatenate(parts) for parts in zip(*self._found, strict=True))
        is_open = values >= self._floor
        return rows[is_open], values[is_open]


def _blocks_of_products(
    queries: Tensor, documents: Matrix
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield first row and products [num_queries, num_rows] of each block of documents."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        matrix = torch.from_numpy(documents)
    is_half = queries.dtype == torch.float16
    size = NUM_ROWS_PER_BLOCK if is_half or matrix.dtype == torch.float32 else NUM_ROWS_CONVERTED
    buffer = torch.empty(0 if size == NUM_ROWS_PER_BLOCK else size, matrix.shape[1])
    with full_fp32():
        for start in range(0, len(matrix), size):
            block = matrix[start : start + size]
            if is_half:
                yield start, torch.mv(block, queries[0]).numpy().astype(np.float32)[None]
            else:
                wide = buffer[: len(block)].copy_(block) if len(buffer) else block
                yield start, (queries @ wide.T).numpy()


def _single_bound(dim: int, *, largest: float) -> ErrorBound:
    """Return the bound of sums in fp32 in any order (Higham 2002, section 3.1)."""
    return ErrorBound(fixed=_sum_error(dim) * largest + 2.0**-120, relative=0.0)


def _halved(queries: NDArray[np.float32], *, largest: float) -> tuple[Tensor, ErrorBound]:
    """Return one query in fp16, scaled, and the bound of products that are rounded to fp16.

    torch sums such products in fp32. What the query loses is known, and counts with the largest
    norm of a document.
    """
    exponent = math.floor(math.log2(LARGEST_PRODUCT / largest)) if largest > 0 else 0
    norm = float(np.linalg.norm(queries.astype(np.float64)))
    # no entry of the query itself may leave fp16 either
    exponent = min(exponent, math.floor(math.log2(LARGEST_PRODUCT / norm)) if norm > 0 else 0)
    scale = 2.0**exponent
    wide = queries.astype(np.float64) * scale
    half = wide.astype(np.float16)
    lost = float(np.linalg.norm(wide - half.astype(np.float64)))
    largest_norm = largest / norm if norm > 0 else 0.0
    summed = _sum_error(queries.shape[1]) * (largest * scale + lost * largest_norm)
    # rounding to fp16 is relative to what was rounded, and absolute among the smallest numbers
    fixed = lost * largest_norm + summed * (1 + HALF) + 2.0**-24
    bound = ErrorBound(fixed=fixed * (1 + 1e-6), relative=HALF / (1 - HALF), scale=scale)
    return torch.from_numpy(half), bound


def _sum_error(dim: int) -> float:
    """Return the largest error of a sum of `dim` products in fp32 and of rounding the score."""
    rounded = (dim + 2) * SINGLE
    return rounded / (1 - rounded) + SINGLE + (dim + 2) * 2.0**-52
