"""Choose the hard negatives of a query among its ranked candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from quarry.data.draws import Draws
from quarry.errors import UserError
from quarry.mining.negative_filter import NegativeFilter

Sampling = Literal["top", "random"]

NO_CANDIDATE_IN_SOURCE = "no_candidate_in_source"
NO_CANDIDATE = "no_candidate"
OUTSIDE_RANK_RANGE = "outside_rank_range"
POSITIVE_WITHOUT_SCORE = "positive_without_score"
FILTERED = "filtered"
REASONS = (
    NO_CANDIDATE_IN_SOURCE,
    NO_CANDIDATE,
    OUTSIDE_RANK_RANGE,
    POSITIVE_WITHOUT_SCORE,
    FILTERED,
)
"""Why a query has no hard negative: the source found nothing; nothing but known positives; nothing
in `rank_range`; a filter compares with the positive, which has no score; everything was filtered.
"""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """What a retriever found for an example.

    Attributes:
        places: [num] int64, candidates by their places among the passages, best first.
        scores: [num] float64, theirs.
        positive_scores: [num_positives] float64, of the example's positives; NaN: not known.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float64]
    positive_scores: NDArray[np.float64]

    @property
    def positive_score(self) -> float:
        """Return the lowest known score of a positive; NaN if none is known."""
        known = self.positive_scores[~np.isnan(self.positive_scores)]
        return float(known.min()) if len(known) else math.nan


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The hard negatives of a query, best first.

    Attributes:
        places, scores: see `Ranked`.
        ranks: [num] int64, from 1, among the candidates that are no positives.
        reason: why there are none, one of `REASONS`; None: there are some.
        num_positives_retrieved: candidates that were known positives, or the query's own text.
        num_filtered: candidates in the rank range that the filter has dropped.
        lacks_positive_score: the filter compared with the lowest known score of a positive, and
            another positive has none.
    """

    places: NDArray[np.int64]
    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]
    reason: str | None
    num_positives_retrieved: int = 0
    num_filtered: int = 0
    lacks_positive_score: bool = False


@dataclass(frozen=True, kw_only=True)
class NegativeChoice:
    """Rules by which hard negatives are chosen.

    Attributes:
        top_k: candidates of a query, known positives not counted.
        rank_range: first and last rank, from 1, of those that may become negatives; None: all.
        num_negatives: of a query, if that many remain.
        sampling: "top": the best of those that remain; "random": drawn among them, depending on
            the seed and the text of the query alone.
        filter: drops candidates that may be positives.
        seed: of the sampling.
        key: where these settings stand in a configuration, for messages.

    Raises:
        UserError: a number below 1, a rank range that is empty or exceeds `top_k`, or has fewer
            ranks than negatives are wanted, or a filter's number out of its range.
    """

    top_k: int
    rank_range: tuple[int, int] | None = None
    num_negatives: int
    sampling: Sampling = "top"
    filter: NegativeFilter
    seed: int = 0
    key: str = "task"

    def __post_init__(self) -> None:
        key = self.key
        self.filter.check(key=self.filter_key)
        for name in ("top_k", "num_negatives"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"{key}.{name}={getattr(self, name)}: nothing would be mined (at least 1). "
                    f"Fix: {key}.{name}={100 if name == 'top_k' else 7}"
                )
        if self.sampling not in get_args(Sampling):
            raise UserError(
                f"{key}.sampling={self.sampling}: unknown (top, random). Fix: {key}.sampling=top"
            )
        first, last = self.first_and_last
        shown = f"{key}.rank_range=[{first},{last}]"
        if self.rank_range is not None and not 1 <= first <= last <= self.top_k:
            raise UserError(
                f"{shown}: no ranks of {key}.top_k={self.top_k} candidates (1 <= first <= last <= "
                f"top_k). Fix: {key}.top_k={max(last, 1)}, or another range"
            )
        if last - first + 1 < self.num_negatives:
            where = f"{key}.top_k={self.top_k}" if self.rank_range is None else shown
            raise UserError(
                f"{key}.num_negatives={self.num_negatives}: more than the {last - first + 1} ranks "
                f"of {where}. Fix: {key}.num_negatives={last - first + 1}"
            )

    @property
    def filter_key(self) -> str:
        """Return where the filter stands in a configuration."""
        return f"{self.key}.filter"

    @property
    def first_and_last(self) -> tuple[int, int]:
        """Return the first and the last rank, from 1, that may become negatives."""
        return (1, self.top_k) if self.rank_range is None else self.rank_range

    def choose(
        self,
        ranked: Ranked,
        *,
        excluded: NDArray[np.int64],
        query: str,
        percentile_score: float | None = None,
    ) -> Chosen:
        """Return the hard negatives of a query.

        Args:
            excluded: places of passages that are no negatives of it.
            query: its text.
            percentile_score: see `NegativeFilter.keeps`.
        """
        is_other = ~np.isin(ranked.places, excluded)
        places, scores = (
            ranked.places[is_other][: self.top_k],
            ranked.scores[is_other][: self.top_k],
        )
        num_positives = int((~is_other).sum())
        first, last = self.first_and_last
        ranks = np.arange(1, len(places) + 1)[first - 1 : last]
        places, scores = places[first - 1 : last], scores[first - 1 : last]
        if not len(places):
            return _nothing(_why_none(is_other), num_positives)
        if self.filter.needs_positive_score and math.isnan(ranked.positive_score):
            return _nothing(POSITIVE_WITHOUT_SCORE, num_positives)
        is_kept = self.filter.keeps(
            scores, positive_score=ranked.positive_score, percentile_score=percentile_score
        )
        num_filtered = int((~is_kept).sum())
        left = np.flatnonzero(is_kept)
        if not len(left):
            return _nothing(FILTERED, num_positives, num_filtered)
        drawn = left[self._drawn(len(left), query)]
        is_unknown = self.filter.needs_positive_score and np.isnan(ranked.positive_scores).any()
        return Chosen(
            places=places[drawn],
            scores=scores[drawn],
            ranks=ranks[drawn],
            reason=None,
            num_positives_retrieved=num_positives,
            num_filtered=num_filtered,
            lacks_positive_score=bool(is_unknown),
        )

    def _drawn(self, number: int, query: str) -> NDArray[np.int64]:
        """Return which of so many candidates are taken, ascending."""
        if self.sampling == "top" or number <= self.num_negatives:
            return np.arange(min(number, self.num_negatives))
        order = Draws(self.seed, query, "mined negatives").permutation(number)
        return np.sort(np.array(order[: self.num_negatives], dtype=np.int64))


def _why_none(is_other: NDArray[np.bool_]) -> str:
    """Return why no candidate is left in the rank range.

    Args:
        is_other: [num_retrieved] whether a candidate is no known positive.
    """
    if not len(is_other):
        return NO_CANDIDATE_IN_SOURCE
    return OUTSIDE_RANK_RANGE if is_other.any() else NO_CANDIDATE


def _nothing(reason: str, num_positives_retrieved: int, num_filtered: int = 0) -> Chosen:
    empty = np.zeros(0, dtype=np.int64)
    return Chosen(
        places=empty,
        scores=empty.astype(float),
        ranks=empty,
        reason=reason,
        num_positives_retrieved=num_positives_retrieved,
        num_filtered=num_filtered,
    )
