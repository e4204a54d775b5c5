"""Read a run file that another system wrote: TREC's six columns or MS MARCO's three.

An error in the file is reported with its line. What may be intended but changes metrics is
counted: ranks that contradict scores, and ranks that break ties differently.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from quarry.errors import UserError
from quarry.metrics.ranking import Ties, rank_documents
from quarry.metrics.run_files import numbered_lines
from quarry.types import Run

Form = Literal["TREC", "MS MARCO"]

_COLUMNS: Mapping[int, Form] = {6: "TREC", 3: "MS MARCO"}
_FORMS = (
    "6 (TREC: query-id Q0 document-id rank score tag) or 3 (MS MARCO: query-id, document-id, rank)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenRun:
    """A run read from a file, with its ranks and tag.

    Attributes:
        path: the file.
        form: format of its lines.
        run: query id -> document id -> score; in MS MARCO's format the score is minus the rank.
        ranks: query id -> the rank column, in the order of `run[query id]`. Empty if any rank in
            the file is not a whole number: trec_eval ignores ranks.
        tag: name of the system in the sixth column; None: there is none, or several.
    """

    path: Path
    form: Form
    run: Run
    ranks: Mapping[str, Sequence[int]]
    tag: str | None

    @property
    def depth(self) -> int:
        """Number of documents in the longest ranking."""
        return max(map(len, self.run.values()))

    def num_against_scores(self) -> int:
        """Count the queries in which a document is ranked before one with a higher score."""
        return sum(
            _contradicts(np.array(ranks), np.array(list(self.run[query_id].values())))
            for query_id, ranks in self.ranks.items()
        )

    def num_ties_otherwise(self, ties: Ties) -> int:
        """Count the queries whose ranks break ties between equal scores differently from `ties`."""
        return sum(
            _orders_ties_otherwise(self.run[query_id], ranks, ties)
            for query_id, ranks in self.ranks.items()
        )


def read_given_run(path: Path) -> GivenRun:
    """Read a run file in either format, `.gz` or plain; the first line decides which.

    Raises:
        MissingPathError: there is no such file.
        UserError: the file is empty or damaged, a line is malformed, a document occurs twice for a
            query, a score is NaN, or MS MARCO's third column holds no ranks.
    """
    run: Run = {}
    ranks: dict[str, array[int]] = {}
    tags: set[str | None] = set()
    has_ranks, form = True, None
    name = str(path)  # a path is slow to format, and there are millions of lines
    for number, form, columns in _rows(path):
        entry = _entry(form, columns, where=f"{name}:{number}")
        if entry.query_id not in run:
            run[entry.query_id], ranks[entry.query_id] = {}, array("q")
        scores = run[entry.query_id]
        if entry.document_id in scores:
            raise UserError(
                f"{path}:{number}: document {entry.document_id!r} is there twice for query "
                f"{entry.query_id!r} (each once). Fix: leave one of the two lines."
            )
        scores[entry.document_id] = entry.score
        tags.add(entry.tag)
        has_ranks = has_ranks and entry.rank is not None
        ranks[entry.query_id].append(entry.rank or 0)
    if form is None:
        raise UserError(
            f"{path}: the file is empty (a run has a line for each document of a ranking). Fix: "
            "write it again, or leave it out of task.runs."
        )
    if form == "MS MARCO":
        _check_ranks(path, ranks)
    tag = next(iter(tags)) if len(tags) == 1 else None
    return GivenRun(path=path, form=form, run=run, ranks=ranks if has_ranks else {}, tag=tag)


class _Entry(NamedTuple):
    query_id: str
    document_id: str
    score: float
    rank: int | None
    tag: str | None


def _entry(form: Form, columns: Sequence[str], *, where: str) -> _Entry:
    if form == "TREC":
        query_id, _, document_id, position, score, tag = columns
        return _Entry(query_id, document_id, _score(score, where), _integer(position), tag)
    query_id, document_id, position = columns
    number = _required_rank(position, where)
    return _Entry(query_id, document_id, -float(number), number, None)


def _rows(path: Path) -> Iterator[tuple[int, Form, list[str]]]:
    """Yield line number, format and columns of every line that is not blank."""
    num_columns = 0
    for number, line in numbered_lines(path):
        columns = line.split()
        if not columns:
            continue
        if not num_columns and len(columns) in _COLUMNS:
            num_columns = len(columns)
        if len(columns) != num_columns:
            allowed = f"{num_columns} as before" if num_columns else _FORMS
            raise UserError(
                f"{path}:{number}: {len(columns)} columns ({allowed}). Fix: write all lines in one "
                "of the two forms, without white space in ids."
            )
        yield number, _COLUMNS[num_columns], columns


def _score(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if math.isnan(score):
        raise UserError(
            f"{where}: the score {text!r} is not a number (the fifth column orders the documents). "
            "Fix: write the score there, or leave the line out."
        )
    return score


def _integer(text: str) -> int | None:
    # rank columns have at most about ten digits; more than 18 would not fit the array
    return int(text) if text.isdecimal() and len(text) <= 18 else None


def _required_rank(text: str, where: str) -> int:
    number = _integer(text)
    if number is None:
        raise UserError(
            f"{where}: the rank {text!r} is not a whole number (three columns are MS MARCO's "
            "query-id, document-id, rank). Fix: a run with scores needs TREC's six columns, "
            "query-id Q0 document-id rank score tag."
        )
    return number


def _check_ranks(path: Path, ranks: Mapping[str, Sequence[int]]) -> None:
    """Raise if MS MARCO's third column holds no ranks: it alone orders the documents."""
    for query_id, found in ranks.items():
        if min(found) > 1:
            raise UserError(
                f"{path}: the least rank of query {query_id!r} is {min(found)} (ranks begin with 1 "
                "or 0). Fix: if the third column is a score, write TREC's six columns; else number "
                "the documents from 1."
            )
        if len(set(found)) < len(found):
            twice = next(each for each in found if list(found).count(each) > 1)
            raise UserError(
                f"{path}: query {query_id!r} has two documents of rank {twice} (each rank once). "
                "Fix: number its documents from 1."
            )


def _contradicts(ranks: np.ndarray, scores: np.ndarray) -> bool:
    by_rank = scores[np.lexsort((-scores, ranks))]
    return bool((by_rank[1:] > by_rank[:-1]).any())


def _orders_ties_otherwise(scores: Mapping[str, float], ranks: Sequence[int], ties: Ties) -> bool:
    if len(set(scores.values())) == len(scores):
        return False
    places = dict(zip(scores, ranks, strict=True))
    order = rank_documents(scores, ties=ties)
    return any(
        scores[first] == scores[second] and places[first] > places[second]
        for first, second in pairwise(order)
    )
