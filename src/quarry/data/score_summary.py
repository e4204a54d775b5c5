"""Find out which training examples lack a teacher's score, without reading their texts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quarry.data.arrow_table import ArrowTable
from quarry.types import TrainExample


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """What a teacher's scores of a training set are.

    Attributes:
        lacking: examples without a score of each of their passages, in order.
        lowest, highest: of all scores; NaN where there is none.
    """

    lacking: NDArray[np.int64]
    lowest: float
    highest: float


class _Examples(Protocol):
    """Training examples by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> TrainExample: ...


@runtime_checkable
class _ScoredSource(Protocol):
    """Source that knows its scores without reading examples, as `TableExamples`."""

    def score_summary(self, *, has_negatives: bool) -> ScoreSummary: ...


def score_summary(examples: _Examples, *, has_negatives: bool) -> ScoreSummary:
    """Return the summary of the scores of a training set.

    Args:
        has_negatives: count the scores of hard negatives, too.
    """
    if isinstance(examples, _ScoredSource):
        return examples.score_summary(has_negatives=has_negatives)
    lacking, values = [], []
    for index in range(len(examples)):
        example = examples[index]
        scores = [example.positive_scores or [math.nan]]
        if has_negatives and example.hard_negatives:
            scores.append(example.hard_negative_scores or [math.nan])
        found = [score for part in scores for score in part]
        if any(map(math.isnan, found)):
            lacking.append(index)
        values += found
    return _summary(np.array(lacking, dtype=np.int64), np.array(values))


def table_summary(
    table: ArrowTable, rows: NDArray[np.int64], *, has_negatives: bool
) -> ScoreSummary:
    """Return the summary of a table of training examples.

    Args:
        rows: rows of the table that are examples, in order.
        has_negatives: count the scores of hard negatives, too.
    """
    is_lacking = np.zeros(len(table), dtype=bool)
    values = []
    kinds = ["positive", "hard_negative"] if has_negatives else ["positive"]
    for kind in kinds:
        num_passages = table.column(f"num_{kind}s")
        start = 0
        for cells in table.cells(f"{kind}_scores"):
            found, has_gap = _gaps(cells)
            stop = start + len(cells)
            is_lacking[start:stop] |= has_gap & (num_passages[start:stop] > 0)
            values.append(found)
            start = stop
    return _summary(np.flatnonzero(is_lacking[rows]), np.concatenate(values))


def _gaps(cells: pa.ListArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return all scores of a column, and for each row whether it has none or a NaN."""
    scores = cells.flatten().to_numpy(zero_copy_only=False)
    lengths = cells.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    num_nan = np.concatenate([[0], np.cumsum(np.isnan(scores))])
    has_nan = num_nan[ends] > num_nan[ends - lengths]
    return scores, has_nan | (lengths == 0)


def _summary(lacking: NDArray[np.int64], values: NDArray[np.float64]) -> ScoreSummary:
    known = values[~np.isnan(values)]
    if not len(known):
        return ScoreSummary(lacking=lacking, lowest=math.nan, highest=math.nan)
    return ScoreSummary(lacking=lacking, lowest=float(known.min()), highest=float(known.max()))
