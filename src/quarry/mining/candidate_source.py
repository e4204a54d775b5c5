"""Define what ranks candidates for hard negatives, for some examples at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quarry.mining.negative_choice import Ranked


class CandidateSource(Protocol):
    """Retriever of candidates for the examples of a training set.

    Attributes:
        name: what the candidates were found with: "dense", "bm25", "run" or "teacher".
        is_teacher: whether its scores are a teacher's, which a loss may learn from.
        setting: chooses it on a command line, for messages.
        lacks: why it may find nothing for a query, for messages.
        remedy: gives it more candidates, for messages.
    """

    @property
    def name(self) -> str: ...

    @property
    def is_teacher(self) -> bool: ...

    @property
    def setting(self) -> str: ...

    @property
    def lacks(self) -> str: ...

    @property
    def remedy(self) -> str: ...

    def ranked(self, start: int, stop: int, *, depth: int) -> Iterator[Ranked]:
        """Yield up to `depth` candidates of each of the examples start..stop-1, best first.

        Known positives are among them. Equal scores rank by place, lowest first.
        """
        ...

    def positive_scores(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the scores of the examples' positives, one after another; NaN: not known."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return counts about what it was made from, for a report."""
        ...
