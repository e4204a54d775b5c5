"""Training files of several forms, and BEIR folders, become memory-mapped `TrainExample`s.

What a file says is checked once, line by line, when its table is built: a bad line stops a run
before any model loads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quarry.data.arrow_table import LINE, ArrowTable, open_table
from quarry.data.beir import read_corpus, read_judged_queries
from quarry.data.beir_folder import CORPUS, QUERIES, find_split, find_table
from quarry.data.corpus import Corpus, is_blank
from quarry.data.jsonl import find_file, read_jsonl
from quarry.data.judgements import read_qrels
from quarry.data.train_forms import TrainForm, TrainLine, form_of_file
from quarry.errors import UserError
from quarry.types import Document, Query, TrainExample

logger = logging.getLogger(__name__)

_ROW = ("query_id", "query", "positives", "hard_negatives")
_DOCUMENT = pa.struct([(name, pa.large_string()) for name in ("document_id", "title", "text")])


class ExampleSource(Protocol):
    """What training reads from: examples by number, each with all its passages."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> TrainExample: ...


class TableExamples(Sequence[TrainExample]):
    """Examples of a memory-mapped table; passages stand in the table or are rows of a corpus.

    A row without a positive (only BEIR folders have such) is no example and is left out. Positives
    differ in id; so do hard negatives, none of which is a positive.
    """

    def __init__(self, *, table: ArrowTable, source: Path, corpus: Corpus | None) -> None:
        self._table = table
        self._source = source
        self._corpus = corpus
        self._rows = np.flatnonzero(table.column("num_positives"))
        self._warn_of_dropped()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> TrainExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainExample]: ...
    def __getitem__(self, index: int | slice) -> TrainExample | list[TrainExample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        query_id, query, positives, hard_negatives = self._table.row(int(self._rows[index]), _ROW)
        return TrainExample(
            query=Query(query_id=query_id, text=query),
            positives=self._passages(positives),
            hard_negatives=self._passages(hard_negatives),
        )

    def hard_negative_counts(self) -> NDArray[np.int32]:
        """How many hard negatives each example has, without reading any: [len(self)]."""
        return self._table.column("num_hard_negatives")[self._rows]

    @property
    def num_without_hard_negatives(self) -> int:
        return int((self.hard_negative_counts() == 0).sum())

    def location(self, index: int) -> str:
        """Where an example was read: "file:line"."""
        (line,) = self._table.row(int(self._rows[index]), (LINE,))
        return f"{self._source}:{line}"

    def _passages(self, cell: list[Any]) -> tuple[Document, ...]:
        if self._corpus is None:
            return tuple([Document(**fields) for fields in cell])
        return tuple([self._corpus[row] for row in cell])

    def _warn_of_dropped(self) -> None:
        num_queries = len(self._table) - len(self)
        num_passages = int(self._table.column("num_dropped").sum())
        if num_queries or num_passages:
            logger.warning(
                "%s: left out %d passages that are empty or not in the corpus, and %d queries "
                "without a positive; %d examples remain",
                self._source,
                num_passages,
                num_queries,
                len(self),
            )


def read_train_jsonl(
    *, path: Path | str, corpus_path: Path | str | None = None, cache_dir: Path | str
) -> TableExamples:
    """The examples of a JSONL file, whose form is known by its keys.

    - Tevatron, texts inline: `query_id`, `query`, `positive_passages` and `negative_passages`
      (lists of `docid`, `title`, `text`).
    - Tevatron, ids: `query_id`, `query_text` or `query`, `positive_document_ids`,
      `negative_document_ids`, together with `corpus_path`.
    - Pairs and triples: `query`, `positive` and, if any, `negative` or `negatives` (each a string
      or a list of them). Ids are made from the texts: the same text always has the same id.

    Hard negatives that are empty or not in the corpus are left out and counted in one warning, and
    so are positives that are not in the corpus.

    Args:
        path: the training file.
        corpus_path: JSONL of `docid` or `_id`, `title`, `text`; read for the form with ids alone.
        cache_dir: where the memory-mapped tables go.

    Raises:
        MissingPathError: a file is not there.
        UserError: a malformed line, a line of another form than the first, an empty query or
            positive, an example without a usable positive.
    """
    source = find_file(Path(path))
    form = form_of_file(source)
    if form.needs_corpus and corpus_path is None:
        raise UserError(
            f"{source}: names passages by id ({form.marker!r}) but corpus_path is not set; set it "
            "to the JSONL file that holds their texts"
        )
    if not form.needs_corpus and corpus_path is not None:
        logger.warning("%s holds its texts; corpus_path=%s is not read", source, corpus_path)
        corpus_path = None
    corpus_source = find_file(Path(corpus_path)) if corpus_path else None
    corpus = read_corpus(path=corpus_source, cache_dir=cache_dir) if corpus_source else None
    table = open_table(
        cache_dir=Path(cache_dir),
        kind="examples",
        sources=[source, corpus_source] if corpus_source else [source],
        schema=_schema(pa.int64() if corpus_source else _DOCUMENT),
        rows=_jsonl_rows(source, form, corpus),
    )
    return TableExamples(table=table, source=source, corpus=corpus)


class BeirExamples(TableExamples):
    """The judged queries of one split of a BEIR folder, in the order of queries.jsonl.

    Positives are documents with a grade above 0, hard negatives those judged 0 or below. Documents
    that are empty or not in the corpus are left out, and so is a query that keeps no positive; both
    are counted in one warning.

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
            schema=_schema(pa.int64()),
            rows=_beir_rows(path, qrels_path, corpus),
        )
        super().__init__(table=table, source=queries_path, corpus=corpus)
        if len(self) == 0:
            raise UserError(
                f"{qrels_path}: no query has a positive document in the corpus; check that the "
                "corpus and the qrels belong together"
            )


_Cells = dict[Hashable, tuple[Any, bool]]
"""What tells passages apart -> the table's cell for the passage (None: it is not in the corpus) and
whether the passage is empty."""


def _schema(passage: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            (LINE, pa.int64()),
            ("query_id", pa.large_string()),
            ("query", pa.large_string()),
            ("positives", pa.list_(passage)),
            ("hard_negatives", pa.list_(passage)),
            ("num_positives", pa.int32()),
            ("num_hard_negatives", pa.int32()),
            ("num_dropped", pa.int32()),
        ]
    )


def _jsonl_rows(source: Path, form: TrainForm, corpus: Corpus | None) -> Iterator[tuple[Any, ...]]:
    cells_of = _inline_cells if corpus is None else _corpus_cells(corpus)
    for number, record in read_jsonl(source):
        where = f"{source}:{number}"
        if form.marker not in record:
            raise UserError(
                f"{where}: lacks {form.marker!r}, which the first line has; all lines of a file "
                "must have one form"
            )
        line = form.parse(record, where)
        if not line.query.strip():
            raise UserError(f"{where}: the query is empty; give it a text or remove the line")
        positives = cells_of(line.positives)
        if all(cell is None for cell, _ in positives.values()):
            reason = "is in the corpus" if line.positives else "is given"
            raise UserError(
                f"{where}: no positive of query {line.query_id!r} {reason}; every example needs one"
            )
        if any(is_empty for _, is_empty in positives.values()):
            raise UserError(f"{where}: a positive has no text; give it one or remove it")
        yield _row(number, line, positives, cells_of(line.hard_negatives))


def _beir_rows(path: Path, qrels_path: Path, corpus: Corpus) -> Iterator[tuple[Any, ...]]:
    cells_of = _corpus_cells(corpus)
    qrels = read_qrels(qrels_path)
    for number, query in read_judged_queries(path=path, qrels=qrels):
        grades = qrels[query.query_id].items()
        line = TrainLine(
            query_id=query.query_id,
            query=query.text,
            positives=[document_id for document_id, grade in grades if grade > 0],
            hard_negatives=[document_id for document_id, grade in grades if grade <= 0],
        )
        yield _row(number, line, cells_of(line.positives), cells_of(line.hard_negatives))


def _inline_cells(documents: list[Document]) -> _Cells:
    return {
        document.document_id: (
            # Spelt out: dataclasses.asdict would make the whole build take 1.6 times as long.
            {
                "document_id": document.document_id,
                "title": document.title,
                "text": document.text,
            },
            is_blank(document),
        )
        for document in documents
    }


def _corpus_cells(corpus: Corpus) -> Callable[[list[str]], _Cells]:
    is_empty = corpus.is_empty()

    def cells_of(document_ids: list[str]) -> _Cells:
        rows = corpus.rows_of(document_ids).tolist()
        return {
            document_id: (row, bool(is_empty[row])) if row >= 0 else (None, False)
            for document_id, row in zip(document_ids, rows, strict=True)
        }

    return cells_of


def _row(
    number: int, line: TrainLine, positives: _Cells, hard_negatives: _Cells
) -> tuple[Any, ...]:
    """The cells of `_schema`: passages that are there and not empty, each once."""
    others = {key: value for key, value in hard_negatives.items() if key not in positives}
    kept, kept_negatives = (
        [cell for cell, is_empty in cells.values() if cell is not None and not is_empty]
        for cells in (positives, others)
    )
    num_dropped = len(positives) + len(others) - len(kept) - len(kept_negatives)
    counts = (len(kept), len(kept_negatives), num_dropped)
    return (number, line.query_id, line.query, kept, kept_negatives, *counts)
