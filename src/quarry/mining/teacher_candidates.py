"""Rank the hard negatives that training data have by a teacher's scores in them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quarry.data.train_examples import ExampleSource
from quarry.errors import UserError
from quarry.mining.mining_texts import MiningTexts
from quarry.mining.negative_choice import Ranked
from quarry.types import TrainExample


class TeacherCandidates:
    """Source of candidates that are each example's own hard negatives, by a teacher's scores.

    A hard negative without a score is no candidate.

    Args:
        examples: the training set, with scores.
        texts: queries and passages, read without a corpus.

    Raises:
        UserError: no hard negative has a score.
    """

    name = "teacher"
    is_teacher = True
    setting = "task.use_scores=true"
    lacks = "no hard negative of the line has a score"
    remedy = "data with more scored hard negatives, or task.use_scores=false"

    def __init__(self, *, examples: ExampleSource, texts: MiningTexts) -> None:
        self._examples = examples
        self._texts = texts
        self._digest = hashlib.blake2b(digest_size=16)
        has_scores = False
        for row in range(len(examples)):
            example = examples[row]
            has_scores = has_scores or _has_scores(example)
            scores = (example.positive_scores, example.hard_negative_scores)
            self._digest.update(repr(scores).encode())
        if not has_scores:
            raise UserError(
                "task.use_scores=true: no hard negative has a teacher's score (each line's scores "
                "of its passages). Fix: task=teach writes them, or task.use_scores=false"
            )

    def ranked(self, start: int, stop: int, *, depth: int) -> Iterator[Ranked]:
        """Yield the candidates of some examples; see `CandidateSource`.

        Equal scores rank in the order of the line.
        """
        for row in range(start, stop):
            example = self._examples[row]
            places = self._texts.hard_negatives_of(row)
            given = example.hard_negative_scores or [math.nan] * len(places)
            scores = np.array(given, dtype=np.float64)
            is_candidate = ~np.isnan(scores) & (places >= 0)
            places, scores = places[is_candidate], scores[is_candidate]
            best = np.argsort(-scores, kind="stable")[:depth]
            _, first = np.unique(places[best], return_index=True)
            best = best[np.sort(first)]
            yield Ranked(
                places=places[best], scores=scores[best], positive_scores=_of_positives(example)
            )

    def positive_scores(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the scores of the positives; see `CandidateSource`."""
        return np.concatenate([_of_positives(self._examples[row]) for row in range(start, stop)])

    def facts(self) -> dict[str, Any]:
        """Return a digest of the scores."""
        return {"scores_digest": self._digest.hexdigest()}


def _has_scores(example: TrainExample) -> bool:
    return any(not math.isnan(score) for score in example.hard_negative_scores or ())


def _of_positives(example: TrainExample) -> NDArray[np.float64]:
    scores = example.positive_scores or (math.nan,) * len(example.positives)
    return np.array(scores, dtype=np.float64)
