"""Rank candidates by BM25."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quarry.errors import UserError
from quarry.mining.mining_texts import MiningTexts
from quarry.mining.negative_choice import Ranked
from quarry.retrieval.bm25 import BM25Retriever
from quarry.retrieval.tie_breaking import top_k_by_score
from quarry.types import Content


class BM25Candidates:
    """Source of candidates that share a term with the query.

    A positive that a given corpus lacks has no score.

    Args:
        texts: queries and passages.
        retriever: its settings.
        content: kind of the passages.

    Raises:
        UserError: no passage has a term.
    """

    name = "bm25"
    is_teacher = False
    setting = "retriever=bm25"
    lacks = "no passage shares a term with the query"
    remedy = "task.corpus=DIR_OR_FILE with other passages, or retriever=dense"

    def __init__(self, *, texts: MiningTexts, retriever: BM25Retriever, content: Content) -> None:
        self._texts = texts
        searched = texts.passages.first(texts.num_searched)
        index = retriever.index(searched, content=content, label="passages")
        if index is None:
            raise UserError(
                "retriever=bm25: no passage has a term, so nothing can be found. Fix: "
                "retriever=dense, or task.content of the right kind"
            )
        self._index = index
        self._order = np.arange(texts.num_searched)

    def ranked(self, start: int, stop: int, *, depth: int) -> Iterator[Ranked]:
        """Yield the candidates of some examples; see `CandidateSource`."""
        for row in range(start, stop):
            scores = self._index.scores(self._texts.queries[row].text)
            best = top_k_by_score(scores, self._order, k=depth)
            best = best[scores[best] > 0]
            yield Ranked(
                places=best,
                scores=scores[best].astype(np.float64),
                positive_scores=self._of_positives(row, scores),
            )

    def positive_scores(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the scores of the positives; see `CandidateSource`."""
        found = [
            self._of_positives(row, self._index.scores(self._texts.queries[row].text))
            for row in range(start, stop)
        ]
        return np.concatenate(found)

    def facts(self) -> dict[str, Any]:
        """Return the number of terms."""
        return {"num_terms": len(self._index.vocabulary)}

    def _of_positives(self, row: int, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        places = self._texts.positives_of(row)
        known = np.append(scores.astype(np.float64), np.nan)
        found: NDArray[np.float64] = known[np.minimum(places, self._texts.num_searched)]
        return found
