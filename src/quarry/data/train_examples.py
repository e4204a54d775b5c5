"""Store training examples in a memory-mapped table that all processes share."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quarry.data.arrow_table import LINE, ArrowTable, open_table
from quarry.data.beir import read_corpus, read_judged_queries
from quarry.data.beir_folder import CORPUS, QUERIES, find_split, find_table
from quarry.data.caveats import training_caveats
from quarry.data.corpus import Corpus, is_blank
from quarry.data.judgements import read_qrels
from quarry.data.score_summary import ScoreSummary, table_summary
from quarry.data.train_lines import Passage, TrainLine
from quarry.errors import UserError
from quarry.types import Document, Query, TrainExample

logger = logging.getLogger(__name__)

_ROW = (
    *("query_id", "query", "positives", "hard_negatives"),
    *("positive_scores", "hard_negative_scores", "weight"),
)
_DOCUMENT = pa.struct([(name, pa.large_string()) for name in ("document_id", "title", "text")])
_SCORES = pa.list_(pa.float64())

CellsOf = Callable[[Sequence[Any]], Iterable[tuple[str, str, Any, bool]]]
"""Passages as named in a line -> for each its id, its text (or what identifies it), the cell of the
table (None: not in the corpus), and whether it is empty."""


class ExampleSource(Protocol):
    """Source of training examples by index, each with all its passages."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> TrainExample: ...


class TableExamples(Sequence[TrainExample]):
    """Examples of a memory-mapped table; passages are in the table or are rows of a corpus.

    A row without a positive is not an example and is skipped. Positives have different ids, and so
    have hard negatives. No hard negative is a positive, by its id or (if it is in the table) by its
    text.

    Args:
        table: table with the columns of `schema`.
        sources: the files that the rows come from.
        corpus: corpus whose rows the passages are; None: the passages are in the table.

    Attributes:
        caveats: what a reader of a model's metrics must know of its training data, as plain
            sentences: skipped lines, passages that are left out, keys that are not read.

    Raises:
        UserError: no row has a positive.
    """

    def __init__(
        self, *, table: ArrowTable, sources: Sequence[Path], corpus: Corpus | None
    ) -> None:
        self._table = table
        self._sources = tuple(sources)
        self._corpus = corpus
        self._rows = np.flatnonzero(table.column("num_positives"))
        self.caveats = training_caveats(table)
        name = str(self._sources[0])
        if len(self._sources) > 1:
            name = f"{self._sources[0].parent} ({len(self._sources)} files)"
        if self.caveats:
            logger.warning("%s: %s", name, "; ".join(self.caveats))
        if not len(self._rows):
            raise UserError(
                f"{name}: no line has a positive ({'; '.join(self.caveats)}); check "
                "that it is the right file, and the right corpus or qrels where there are some"
            )

    @property
    def tables(self) -> tuple[Path, ...]:
        """Return the files that hold the examples and their passages."""
        corpus = () if self._corpus is None else (self._corpus.table,)
        return (self._table.path, *corpus)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> TrainExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainExample]: ...
    def __getitem__(self, index: int | slice) -> TrainExample | list[TrainExample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        query_id, query, positives, hard_negatives, *scores, weight = self._table.row(
            int(self._rows[index]), _ROW
        )
        of_positives, of_negatives = (None if each is None else tuple(each) for each in scores)
        return TrainExample(
            query=Query(query_id=query_id, text=query),
            positives=self._passages(positives),
            hard_negatives=self._passages(hard_negatives),
            positive_scores=of_positives,
            hard_negative_scores=of_negatives,
            weight=weight,
        )

    def query(self, index: int) -> Query:
        """Return the query of an example, without reading its passages."""
        query_id, text = self._table.row(int(self._rows[index]), ("query_id", "query"))
        return Query(query_id=query_id, text=text)

    def hard_negative_counts(self) -> NDArray[np.int32]:
        """Return the number of hard negatives of each example, without reading any: [len(self)]."""
        return self._table.column("num_hard_negatives")[self._rows]

    def score_summary(self, *, has_negatives: bool) -> ScoreSummary:
        """Return which examples lack a teacher's score, without reading any."""
        return table_summary(self._table, self._rows, has_negatives=has_negatives)

    def location(self, index: int) -> str:
        """Return the place of an example in its file: "file:line"."""
        file, line = self._table.row(int(self._rows[index]), ("file", LINE))
        return f"{self._sources[file]}:{line}"

    def _passages(self, cell: list[Any]) -> tuple[Document, ...]:
        if self._corpus is None:
            return tuple([Document(**fields) for fields in cell])
        return tuple([self._corpus[row] for row in cell])


class BeirExamples(TableExamples):
    """Examples of one split of a BEIR folder: its judged queries, in the order of queries.jsonl.

    Positives are documents with a grade above 0, hard negatives those judged 0 or below. Documents
    that are empty or not in the corpus are left out, and so is a query without a remaining
    positive; `caveats` counts both.

    Raises:
        MissingPathError, UserError: as `quarry.data.beir.read_beir`.
    """

    def __init__(self, *, path: Path | str, split: str, cache_dir: Path | str) -> None:
        path = Path(path).expanduser()
        qrels_path = find_split(path=path, split=split)
        queries_path = find_table(path, QUERIES)
        corpus_path = find_table(path, CORPUS)
        corpus = read_corpus(path=corpus_path, cache_dir=cache_dir)
        table = open_table(
            cache_dir=Path(cache_dir),
            kind="beir-examples",
            sources=[queries_path, qrels_path, corpus_path],
            schema=schema(in_corpus=True),
            rows=_beir_rows(path, qrels_path, corpus),
        )
        super().__init__(table=table, sources=[queries_path], corpus=corpus)


def schema(*, in_corpus: bool) -> pa.Schema:
    """Return the columns of a table; passages are documents or rows of a corpus."""
    passages = pa.list_(pa.int64() if in_corpus else _DOCUMENT)
    counts = ("num_positives", "num_hard_negatives", "num_empty", "num_absent", "num_repeated")
    return pa.schema(
        [
            ("file", pa.int32()),
            (LINE, pa.int64()),
            ("query_id", pa.large_string()),
            ("query", pa.large_string()),
            ("positives", passages),
            ("hard_negatives", passages),
            ("positive_scores", _SCORES),
            ("hard_negative_scores", _SCORES),
            ("weight", pa.float64()),
            *((name, pa.int32()) for name in counts),
            ("unread", pa.large_string()),
        ]
    )


def row_of(line: TrainLine, *, file: int, number: int, cells_of: CellsOf) -> tuple[Any, ...]:
    """Return the cells of `schema` for a line; each passage that exists is stored once.

    Args:
        line: the parsed record.
        file: index of its source.
        number: its line in that source.
        cells_of: returns the table's cells of passages.
    """
    ids: set[str] = set()
    texts: set[str] = set()
    counts = {"empty": 0, "absent": 0, "repeated": 0}

    def kept(passages: Sequence[Passage]) -> tuple[list[Any], list[float] | None]:
        cells: list[Any] = []
        scores: list[float | None] = []
        found = cells_of([passage for passage, _ in passages])
        for (document_id, text, cell, is_empty), (_, score) in zip(found, passages, strict=True):
            if is_empty:
                counts["empty"] += 1
            elif cell is None:
                counts["absent"] += 1
            elif document_id in ids or (passages is line.hard_negatives and text in texts):
                counts["repeated"] += 1
            else:
                cells.append(cell)
                scores.append(score)
                ids.add(document_id)
                if passages is line.positives:
                    texts.add(text)
        if all(score is None for score in scores):
            return cells, None
        return cells, [math.nan if score is None else score for score in scores]

    positives, positive_scores = kept(line.positives)
    negatives, negative_scores = kept(line.hard_negatives)
    return (
        *(file, number, line.query_id, line.query, positives, negatives),
        *(positive_scores, negative_scores, line.weight, len(positives), len(negatives)),
        *(*counts.values(), "\n".join(line.unread)),
    )


def inline_cells(documents: Sequence[Document]) -> Iterator[tuple[str, str, Any, bool]]:
    """Yield the cells of passages whose texts are in the line."""
    for document in documents:
        # spelled out: dataclasses.asdict would make a build take 1.6 times as long
        cell = {
            "document_id": document.document_id,
            "title": document.title,
            "text": document.text,
        }
        text = f"{document.title.strip()}\n{document.text.strip()}"
        yield document.document_id, text, cell, is_blank(document)


def corpus_cells(corpus: Corpus) -> CellsOf:
    """Return a function that looks up passages, named by id, in a corpus."""
    is_empty = corpus.is_empty()

    def cells_of(document_ids: Sequence[str]) -> Iterator[tuple[str, str, Any, bool]]:
        rows = corpus.rows_of(document_ids).tolist()
        for document_id, row in zip(document_ids, rows, strict=True):
            is_blank_row = row >= 0 and bool(is_empty[row])
            yield document_id, document_id, None if row < 0 else row, is_blank_row

    return cells_of


def _beir_rows(path: Path, qrels_path: Path, corpus: Corpus) -> Iterator[tuple[Any, ...]]:
    cells_of = corpus_cells(corpus)
    qrels = read_qrels(qrels_path)
    for number, query in read_judged_queries(path=path, qrels=qrels):
        grades = qrels[query.query_id].items()
        line = TrainLine(
            query_id=query.query_id,
            query=query.text,
            positives=[(document_id, None) for document_id, grade in grades if grade > 0],
            hard_negatives=[(document_id, None) for document_id, grade in grades if grade <= 0],
        )
        yield row_of(line, file=0, number=number, cells_of=cells_of)
