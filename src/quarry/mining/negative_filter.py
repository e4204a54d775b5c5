"""Drop candidates that are too similar to the query to be negatives."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from quarry.errors import UserError

MARGINS = ("absolute_margin", "relative_margin")
"""Bounds that depend on the score of the query's positive."""


@dataclass(frozen=True, kw_only=True)
class NegativeFilter:
    """Bounds that a hard negative's score must lie below; None: no such bound.

    The positive-aware ones are those of NV-Retriever (Moreira et al. 2024, arXiv 2407.15831). The
    positive's score is the lowest of the example's positives that have one; examples of which
    another positive has none are counted.

    Attributes:
        max_score: score < max_score.
        absolute_margin: score < positive - absolute_margin (TopK-MarginPos).
        relative_margin: score < positive - relative_margin * |positive|. With 0.05 a negative has
            less than 95 % of a positive score (TopK-PercPos). Below a positive of -10 it is less
            than -10.5: the bound lies below the positive whatever its sign.
        percentile: score < this percentile, 0 to 100, of the scores of all positives of the
            training data, interpolated linearly.
    """

    max_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    percentile: float | None = None

    def check(self, *, key: str) -> None:
        """Refuse a number that is not finite or out of its range.

        Not when it is made: Hydra makes it before the configuration is checked.

        Args:
            key: where the filter stands in a configuration, for messages.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not math.isfinite(value):
                raise UserError(
                    f"{key}.{field.name}={value}: must be a finite number, or null for no bound. "
                    f"Fix: {key}.{field.name}=null"
                )
        for name, high in (("relative_margin", 1), ("percentile", 100)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= high:
                raise UserError(
                    f"{key}.{name}={value}: out of range (0 to {high}). Fix: {key}.{name}=null"
                )

    @property
    def needs_positive_score(self) -> bool:
        """Return whether a bound depends on the score of the query's positive."""
        return not self.bounds.keys().isdisjoint(MARGINS)

    @property
    def bounds(self) -> dict[str, float]:
        """Return the bounds that are set, by their names."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in given.items() if value is not None}

    def settings(self, *, key: str) -> str:
        """Return the bounds that are set, as they stand on a command line.

        Args:
            key: where the filter stands in a configuration.
        """
        return " ".join(f"{key}.{name}={value}" for name, value in self.bounds.items())

    def keeps(
        self,
        scores: NDArray[np.float64],
        *,
        positive_score: float,
        percentile_score: float | None = None,
    ) -> NDArray[np.bool_]:
        """Return which candidates lie below all bounds: [num_candidates].

        Args:
            scores: [num_candidates].
            positive_score: of the query's positive; not NaN if `needs_positive_score`.
            percentile_score: the score that `percentile` stands for, see `percentile_of`.
        """
        bounds = [math.inf]
        if self.max_score is not None:
            bounds.append(self.max_score)
        if self.absolute_margin is not None:
            bounds.append(positive_score - self.absolute_margin)
        if self.relative_margin is not None:
            bounds.append(positive_score - self.relative_margin * abs(positive_score))
        if self.percentile is not None:
            assert percentile_score is not None
            bounds.append(percentile_score)
        return np.less(scores, min(bounds))

    def percentile_of(self, positive_scores: NDArray[np.float64], *, key: str) -> float | None:
        """Return the score that `percentile` stands for; None: it is not set.

        Args:
            positive_scores: of all positives; NaN where one has none.
            key: where the filter stands in a configuration, for messages.

        Raises:
            UserError: no positive has a score.
        """
        if self.percentile is None:
            return None
        known = positive_scores[~np.isnan(positive_scores)]
        if not len(known):
            raise UserError(
                f"{key}.percentile={self.percentile}: no positive has a score (it is a percentile "
                f"of theirs). Fix: {key}.percentile=null"
            )
        return float(np.percentile(known, self.percentile))
