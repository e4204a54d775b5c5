"""Rank candidates by a run file that another system wrote."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quarry.data.train_examples import ExampleSource
from quarry.errors import UserError
from quarry.metrics.given_run import read_given_run
from quarry.metrics.ranking import rank_documents
from quarry.mining.mining_texts import MiningTexts
from quarry.mining.negative_choice import Ranked
from quarry.types import Document

logger = logging.getLogger(__name__)


def passages_of_examples(examples: ExampleSource) -> Iterator[Document]:
    """Yield the positives and hard negatives of all examples, one example after another."""
    for index in range(len(examples)):
        example = examples[index]
        yield from (*example.positives, *example.hard_negatives)


class RunCandidates:
    """Source of candidates and scores from a run file in TREC's format.

    Ids are those of the training data's queries, and of its passages or the corpus's. Documents of
    one text count once, at their best rank. The file is read into memory.

    Args:
        path: the run file.
        texts: queries and passages.
        documents: those whose ids the file has, each id for one text.
        places: [num_documents] their places among the passages; -1: an empty one.

    Raises:
        MissingPathError, UserError: as `read_given_run`; it has ranks and no scores, or a score
            that is not finite; none of its queries or none of its documents is known.
    """

    name = "run"
    is_teacher = False
    lacks = "the run file has no known document for the query"
    remedy = "a run with more documents of these data for each query"

    def __init__(
        self,
        *,
        path: Path,
        texts: MiningTexts,
        documents: Iterable[Document],
        places: NDArray[np.int64],
    ) -> None:
        given = read_given_run(path)
        if given.form == "MS MARCO":
            raise UserError(
                f"task.run_file={path}: has ranks and no scores, which filters compare (TREC's six "
                "columns). Fix: write it in TREC's format"
            )
        for query_id, scores in given.run.items():
            if not all(map(math.isfinite, scores.values())):
                raise UserError(
                    f"task.run_file={path}: query {query_id!r} has a score that is not finite. "
                    "Fix: correct the file"
                )
        self.setting = f"task.run_file={path}"
        self._texts = texts
        self._run = given.run
        wanted = {document_id for scores in given.run.values() for document_id in scores}
        self._place_of = {
            document.document_id: place
            for document, place in zip(documents, places.tolist(), strict=True)
            if document.document_id in wanted and place >= 0
        }
        known = {query.query_id for query in texts.queries}
        self._facts = {
            "tag": given.tag,
            "num_queries_in_run": len(given.run),
            "num_unknown_queries": len(given.run.keys() - known),
            "num_queries_not_in_run": len(known - given.run.keys()),
            "num_documents_in_run": len(wanted),
            "num_unknown_documents": len(wanted - self._place_of.keys()),
        }
        for what, ids, theirs in (
            ("queries", given.run.keys() & known, sorted(given.run)[:1]),
            ("documents", self._place_of, sorted(wanted)[:1]),
        ):
            if not ids:
                raise UserError(
                    f"task.run_file={path}: none of its {what} is known, not even {theirs[0]!r} "
                    "(ids of the training data, documents of task.corpus where it is given). Fix: "
                    "the run of these data, or data with ids"
                )
        self._warn_of_unknown_ids()

    def ranked(self, start: int, stop: int, *, depth: int) -> Iterator[Ranked]:
        """Yield the candidates of some examples; see `CandidateSource`.

        Equal scores rank by document id, descending, as in trec_eval.
        """
        for row in range(start, stop):
            best = self._best(row)
            searched = [place for place in best if place < self._texts.num_searched][:depth]
            yield Ranked(
                places=np.array(searched, dtype=np.int64),
                scores=np.array([best[place] for place in searched], dtype=np.float64),
                positive_scores=self._of_positives(row, best),
            )

    def positive_scores(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the scores of the positives; see `CandidateSource`."""
        found = [self._of_positives(row, self._best(row)) for row in range(start, stop)]
        return np.concatenate(found)

    def facts(self) -> dict[str, Any]:
        """Return the tag of the file, and how many of its ids are known."""
        return self._facts

    def _warn_of_unknown_ids(self) -> None:
        facts = self._facts
        if facts["num_unknown_queries"] or facts["num_unknown_documents"]:
            logger.warning(
                "%s: %d of its %d queries and %d of its %d documents are unknown, and not used. "
                "Fix: the run of these data; task.corpus names its documents",
                self.setting, facts["num_unknown_queries"], facts["num_queries_in_run"],
                facts["num_unknown_documents"], facts["num_documents_in_run"],
            )  # fmt: skip

    def _best(self, row: int) -> dict[int, float]:
        """Return place -> score, best first."""
        scores = self._run.get(self._texts.queries[row].query_id, {})
        best: dict[int, float] = {}
        for document_id in rank_documents(scores):
            place = self._place_of.get(document_id)
            if place is not None:
                best.setdefault(place, scores[document_id])
        return best

    def _of_positives(self, row: int, best: dict[int, float]) -> NDArray[np.float64]:
        places = self._texts.positives_of(row).tolist()
        return np.array([best.get(place, math.nan) for place in places], dtype=np.float64)
