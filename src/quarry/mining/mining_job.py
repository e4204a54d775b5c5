"""Mine hard negatives for a training set, a block of examples at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quarry.data.train_examples import ExampleSource
from quarry.errors import UserError
from quarry.mining.candidate_source import CandidateSource
from quarry.mining.mined_file import MinedFile
from quarry.mining.mining_texts import MiningTexts
from quarry.mining.negative_choice import (
    FILTERED,
    NO_CANDIDATE,
    OUTSIDE_RANK_RANGE,
    POSITIVE_WITHOUT_SCORE,
    REASONS,
    Chosen,
    NegativeChoice,
    Ranked,
)
from quarry.mining.negative_filter import MARGINS
from quarry.runtime.progress import Progress
from quarry.types import Document, TrainExample

MAX_QUERIES_PER_SEARCH = 65_536
MAX_CANDIDATES_PER_SEARCH = 2**25
NUM_QUERIES_PER_BLOCK = 1_024


@dataclass(frozen=True, kw_only=True)
class MiningJob:
    """Hard negatives of a training set by one source and one choice.

    The result depends on the texts, the source and the choice alone. Searches always begin at the
    same examples, so a call that continues computes the same products as one that did not stop.

    Attributes:
        texts: queries and passages.
        source: ranks candidates.
        choice: takes negatives among them.
        keep_queries: whether a query without a hard negative has a line, too.
        max_queries_per_search: bounds memory.
    """

    texts: MiningTexts
    source: CandidateSource
    choice: NegativeChoice
    keep_queries: bool = False
    max_queries_per_search: int = MAX_QUERIES_PER_SEARCH

    @property
    def depth(self) -> int:
        """Return how many candidates of a query are retrieved, its positives included."""
        return self.choice.top_k + self.texts.most_excluded

    @property
    def num_queries_per_search(self) -> int:
        return max(1, min(self.max_queries_per_search, MAX_CANDIDATES_PER_SEARCH // self.depth))

    def percentile_score(self) -> float | None:
        """Return the score that `filter.percentile` stands for, from all positives' scores."""
        if self.choice.filter.percentile is None:
            return None
        size = self.num_queries_per_search
        scores = [
            self.source.positive_scores(start, min(start + size, len(self.texts)))
            for start in range(0, len(self.texts), size)
        ]
        return self.choice.filter.percentile_of(np.concatenate(scores), key=self.choice.filter_key)

    def chosen(
        self, *, begin: int = 0, percentile_score: float | None
    ) -> Iterator[tuple[int, Ranked, Chosen]]:
        """Yield (example, candidates, hard negatives) of each example from `begin` on."""
        size = self.num_queries_per_search
        for start in range(begin - begin % size, len(self.texts), size):
            stop = min(start + size, len(self.texts))
            found = self.source.ranked(start, stop, depth=self.depth)
            for row, ranked in enumerate(found, start):
                if row < begin:
                    continue
                chosen = self.choice.choose(
                    ranked,
                    excluded=self.texts.excluded_of(row),
                    query=self.texts.queries[row].text.strip(),
                    percentile_score=percentile_score,
                )
                yield row, ranked, chosen

    def write(
        self,
        file: MinedFile,
        examples: ExampleSource,
        *,
        percentile_score: float | None,
        after_output: Callable[[], None] = lambda: None,
    ) -> None:
        """Write a line for each example that has a hard negative, from where `file` stands.

        With `keep_queries` each example has one.

        Args:
            after_output: called after each block, once there is a line.

        Raises:
            UserError: no example has one; nothing of the file is left then.
        """
        found = self.chosen(begin=file.num_done, percentile_score=percentile_score)
        total = len(self.texts)
        with Progress(label="mining", total=total, units="queries") as progress:
            progress.add(file.num_done)
            while file.num_done < total:
                lines, counts = [], Counter[str]()
                stop = file.num_done
                for row, ranked, chosen in islice(found, NUM_QUERIES_PER_BLOCK):
                    counts += counts_of(chosen, wanted=self.choice.num_negatives)
                    if chosen.reason is None or self.keep_queries:
                        lines.append(self._line(examples[row], ranked, chosen))
                        counts["lines"] += 1
                    stop = row + 1
                progress.add(stop - file.num_done)
                file.add(lines, stop=stop, counts=counts)
                if file.counts["queries_out"]:
                    after_output()
        if not file.counts["queries_out"]:
            counts = file.counts
            file.discard()
            raise UserError(self.nothing_left(counts))

    def nothing_left(self, counts: Counter[str]) -> str:
        """Return the message for data in which no query has a hard negative."""
        key, choice = self.choice.key, self.choice
        total = f"leaves none of {counts['queries_in']} queries a hard negative"
        main = max(REASONS, key=lambda reason: counts[f"left_out_{reason}"])
        if main == FILTERED:
            given = choice.filter.settings(key=choice.filter_key)
            return f"{given}: {total} (scores below all bounds). Fix: a wider bound, or null"
        if main == OUTSIDE_RANK_RANGE:
            first, last = choice.first_and_last
            return (
                f"{key}.rank_range=[{first},{last}]: {total}, for no query has as many candidates. "
                f"Fix: {key}.rank_range=null"
            )
        if main == POSITIVE_WITHOUT_SCORE:
            margins = {name: choice.filter.bounds.get(name) for name in MARGINS}
            keys = {
                f"{key}.filter.{name}": each for name, each in margins.items() if each is not None
            }
            return (
                f"{' '.join(f'{name}={each}' for name, each in keys.items())}: {total}, for no "
                "positive has a score to compare with. Fix: "
                f"{' '.join(f'{name}=null' for name in keys)}, or scores of positives"
            )
        why = "nothing but positives was retrieved" if main == NO_CANDIDATE else self.source.lacks
        return f"{self.source.setting}: {total} ({why}). Fix: {self.source.remedy}"

    def _line(self, example: TrainExample, ranked: Ranked, chosen: Chosen) -> dict[str, Any]:
        """Return a line in the form of Tevatron's, which `data=file` reads."""
        negatives = [self.texts.passages[place] for place in chosen.places.tolist()]
        scores = chosen.scores.tolist()
        of_positives = [None if math.isnan(each) else each for each in ranked.positive_scores]
        teacher = self.source.is_teacher
        line: dict[str, Any] = {
            "query_id": example.query.query_id,
            "query": example.query.text,
            "positive_passages": [
                passage_of(document, score if teacher else None)
                for document, score in zip(example.positives, of_positives, strict=True)
            ],
            "negative_passages": [
                passage_of(document, score if teacher else None)
                for document, score in zip(negatives, scores, strict=True)
            ],
        }
        if example.weight is not None:
            line["weight"] = example.weight
        line["mined"] = {
            "with": self.source.name,
            "document_ids": [document.document_id for document in negatives],
            "ranks": chosen.ranks.tolist(),
            "scores": scores,
            "positive_scores": of_positives,
        }
        return line


def passage_of(document: Document, score: float | None) -> dict[str, Any]:
    """Return a passage without its id, which another corpus may give to another text.

    Args:
        score: a teacher's; None: it has none.
    """
    found: dict[str, Any] = {"text": document.text}
    if document.title:
        found["title"] = document.title
    if score is not None:
        found["score"] = score
    return found


def counts_of(chosen: Chosen, *, wanted: int) -> Counter[str]:
    """Return what a report counts of one query."""
    counts = Counter(
        queries_in=1,
        negatives=len(chosen.places),
        positives_retrieved=chosen.num_positives_retrieved,
        candidates_filtered=chosen.num_filtered,
    )
    if chosen.reason is not None:
        counts[f"left_out_{chosen.reason}"] = 1
        return counts
    counts["queries_out"] = 1
    counts["queries_with_fewer"] = int(len(chosen.places) < wanted)
    counts["queries_with_unscored_positive"] = int(chosen.lacks_positive_score)
    return counts


def csr_lists(
    found: Iterator[tuple[int, Ranked, Chosen]], *, num_examples: int, wanted: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Counter[str]]:
    """Return where the hard negatives of each example begin, their places, and counts.

    Args:
        wanted: hard negatives that an example should have.
    """
    lengths = np.zeros(num_examples, dtype=np.int64)
    places: list[NDArray[np.int64]] = []
    counts: Counter[str] = Counter()
    for row, _, chosen in found:
        lengths[row] = len(chosen.places)
        places.append(chosen.places)
        counts += counts_of(chosen, wanted=wanted)
    return np.append(0, np.cumsum(lengths)), np.concatenate(places), counts
