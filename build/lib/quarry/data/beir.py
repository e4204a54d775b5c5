"""A test collection in BEIR's layout becomes a `RetrievalSet` whose corpus is memory-mapped.

    <set>/corpus.jsonl        {"_id", "title" (optional), "text"}
    <set>/queries.jsonl       {"_id", "text"}
    <set>/qrels/<split>.tsv   query-id, corpus-id, score, separated by tabs, below a header line

Each file may be gzipped (`.gz` appended). Layout: Thakur et al. 2021, arXiv 2104.08663.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quarry.data.arrow_table import LINE, ArrowTable, open_table
from quarry.data.jsonl import find_file, read_jsonl, read_lines, record_id, record_text
from quarry.errors import MissingPathError, UserError
from quarry.types import Content, Document, Qrels, Query, RetrievalSet

logger = logging.getLogger(__name__)

_DOCUMENT = ("document_id", "title", "text")
_SCHEMA = pa.schema(
    [
        (LINE, pa.int64()),
        ("document_id", pa.large_string()),
        ("title", pa.large_string()),
        ("text", pa.large_string()),
        ("is_empty", pa.bool_()),
    ]
)


class Corpus(Sequence[Document]):
    """Documents of a memory-mapped table, made one at a time as they are asked for."""

    def __init__(self, *, table: ArrowTable) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return list(self._documents(start, stop))
            return [self[row] for row in range(start, stop, step)]
        document_id, title, text = self._table.row(index, _DOCUMENT)
        return Document(document_id=document_id, title=title, text=text)

    def __iter__(self) -> Iterator[Document]:
        return self._documents(0, len(self))

    def rows_of(self, document_ids: Sequence[str]) -> NDArray[np.int64]:
        """Where each document stands, -1 for one that is not here: [len(document_ids)]."""
        return self._table.rows_of(document_ids, id_column="document_id")

    def is_empty(self) -> NDArray[np.bool_]:
        """Which documents have neither a title nor a text: [len(self)]."""
        return self._table.column("is_empty")

    def _documents(self, start: int, stop: int) -> Iterator[Document]:
        for document_id, title, text in self._table.rows(start, stop, _DOCUMENT):
            yield Document(document_id=document_id, title=title, text=text)


def read_corpus(*, path: Path | str, cache_dir: Path | str) -> Corpus:
    """The documents of a JSONL file: BEIR's `_id` or Tevatron's `docid`, `title`, `text`.

    Raises:
        MissingPathError: no such file.
        UserError: a malformed line, or an id that stands on two lines.
    """
    source = find_file(Path(path))
    table = open_table(
        cache_dir=Path(cache_dir),
        kind="corpus",
        sources=[source],
        schema=_SCHEMA,
        rows=_corpus_rows(source),
        id_column="document_id",
    )
    return Corpus(table=table)


def read_beir(
    *,
    path: Path | str,
    split: str,
    cache_dir: Path | str,
    name: str | None = None,
    content: Content = "text",
) -> RetrievalSet:
    """One split of a BEIR folder, with the queries that it judges, in the order of their file.

    Public sets hold empty documents, and judge documents that their corpus lacks. Both are kept
    (a missing document counts as one that no retriever finds) and told in one logged warning.

    Args:
        path: the folder of the set.
        split: its qrels, `qrels/<split>.tsv`.
        cache_dir: where the memory-mapped corpus goes.
        name: of the set in reports; the folder's name if left out.
        content: what the corpus holds, for BM25.

    Raises:
        MissingPathError: the folder, a file or the split is not there.
        UserError: a malformed line; an id twice; a judged query that is empty or missing; no judged
            document in the corpus; no judgement above 0.
    """
    path = Path(path).expanduser()
    qrels_path = find_split(path=path, split=split)
    qrels = read_qrels(qrels_path)
    queries = [query for _, query in read_judged_queries(path=path, qrels=qrels)]
    corpus = read_corpus(path=path / "corpus.jsonl", cache_dir=cache_dir)
    name = name or path.resolve().name
    _check_judged_documents(name=name, qrels=qrels, qrels_path=qrels_path, corpus=corpus)
    return RetrievalSet(name=name, queries=queries, corpus=corpus, qrels=qrels, content=content)


def list_splits(path: Path | str) -> list[str]:
    """Names of the splits that a BEIR folder has judgements for, sorted."""
    names = {file.name.removesuffix(".gz") for file in (Path(path) / "qrels").glob("*.tsv*")}
    return sorted(name.removesuffix(".tsv") for name in names if name.endswith(".tsv"))


def find_sets(path: Path | str) -> list[Path]:
    """The BEIR folders at `path`: itself, or those directly inside it, sorted by name.

    Raises:
        MissingPathError: there is none.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise MissingPathError(f"{path}: no such folder; check the path or fetch the data")
    if _is_set(path):
        return [path]
    sets = sorted(folder for folder in path.iterdir() if _is_set(folder))
    if not sets:
        raise MissingPathError(
            f"{path}: neither a BEIR folder nor a folder of them; a BEIR folder has corpus.jsonl, "
            "queries.jsonl (or .gz of them) and qrels/<split>.tsv"
        )
    return sets


def find_split(*, path: Path, split: str) -> Path:
    """The qrels file of a split; MissingPathError (with the splits that exist) without one."""
    if not path.is_dir():
        raise MissingPathError(f"{path}: no such folder; check the path or fetch the data")
    splits = list_splits(path)
    if split not in splits:
        known = f"choose one of: {', '.join(splits)}" if splits else "it has no qrels/*.tsv at all"
        raise MissingPathError(f"{path}: no split {split!r} (qrels/{split}.tsv); {known}")
    return find_file(path / "qrels" / f"{split}.tsv")


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgements of a BEIR qrels file: query id -> document id -> grade, in the file's order.

    A first line whose third column is no number is the header; a repeated line counts once.

    Raises:
        UserError: not three columns, a grade that is no integer, two different grades for one pair,
            or no grade above 0 at all.
    """
    path = find_file(path)
    qrels: dict[str, dict[str, int]] = {}
    for line, query_id, document_id, grade in _judgements(path):
        if qrels.setdefault(query_id, {}).setdefault(document_id, grade) != grade:
            raise UserError(
                f"{path}:{line}: query {query_id!r} and document {document_id!r} have another grade"
                f" on line {judgement_line(path, query_id, document_id)}; keep one of the two"
            )
    if not any(grade > 0 for judged in qrels.values() for grade in judged.values()):
        raise UserError(
            f"{path}: no judgement is positive (grade above 0), so nothing can be found; "
            "check that it is the right file"
        )
    return qrels


def judgement_line(path: Path, query_id: str, document_id: str | None = None) -> int:
    """The first line of a qrels file that judges this query (and document), for messages."""
    return next(
        line
        for line, query, document, _ in _judgements(path)
        if query == query_id and document_id in (None, document)
    )


def read_judged_queries(*, path: Path, qrels: Qrels) -> Iterator[tuple[int, Query]]:
    """Line number and query of each judged query of a BEIR folder, in the order of its file.

    Raises:
        UserError: a malformed line, an id twice, a judged query that is empty or is not there.
    """
    source = find_file(path / "queries.jsonl")
    lines: dict[str, int] = {}
    for line, record in read_jsonl(source):
        where = f"{source}:{line}"
        query_id = record_id(record, ("_id",), where)
        if query_id in lines:
            raise UserError(
                f"{where}: the id {query_id!r} stands on line {lines[query_id]} already; "
                "ids must differ: remove or rename one"
            )
        lines[query_id] = line
        if query_id in qrels:
            text = record_text(record, "text", where)
            if not text.strip():
                raise UserError(
                    f"{where}: query {query_id!r} is empty; give it a text, or remove it here and "
                    "from the qrels"
                )
            yield line, Query(query_id=query_id, text=text)
    missing = [query_id for query_id in qrels if query_id not in lines]
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of {len(qrels)} judged queries are not there, the first is "
            f"{missing[0]!r}; add them, or remove their judgements"
        )


def record_document(record: dict[str, Any], keys: Sequence[str], where: str) -> Document:
    """A document from its id (under the first of `keys` there is), `text` and, if any, `title`."""
    document_id = record_id(record, keys, where)
    text = record_text(record, "text", where)
    title = "" if record.get("title") is None else record_text(record, "title", where)
    return Document(document_id=document_id, title=title, text=text)


def is_blank(document: Document) -> bool:
    """Whether a document has neither title nor text."""
    return not (document.text.strip() or document.title.strip())


def _corpus_rows(source: Path) -> Iterator[tuple[Any, ...]]:
    for line, record in read_jsonl(source):
        document = record_document(record, ("_id", "docid"), f"{source}:{line}")
        yield line, document.document_id, document.title, document.text, is_blank(document)


def _is_set(path: Path) -> bool:
    names = ("corpus.jsonl", "queries.jsonl")
    has_texts = all((path / n).is_file() or (path / f"{n}.gz").is_file() for n in names)
    return has_texts and bool(list_splits(path))


def _judgements(path: Path) -> Iterator[tuple[int, str, str, int]]:
    for line, text in read_lines(path):
        if not text.strip():
            continue
        columns = text.split("\t")
        if len(columns) != 3:
            raise UserError(
                f"{path}:{line}: {len(columns)} columns, not 3; a line is query id, document id "
                "and grade, separated by tabs"
            )
        query_id, document_id, grade = (column.strip() for column in columns)
        if line == 1 and not _is_number(grade):
            continue
        try:
            yield line, query_id, document_id, int(grade)
        except ValueError as error:
            raise UserError(
                f"{path}:{line}: the grade {grade!r} is not an integer; grades are 0, 1, 2, ..."
            ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_judged_documents(*, name: str, qrels: Qrels, qrels_path: Path, corpus: Corpus) -> None:
    judged = sorted({document_id for grades in qrels.values() for document_id in grades})
    is_missing = corpus.rows_of(judged) < 0
    num_missing, num_empty = int(is_missing.sum()), int(corpus.is_empty().sum())
    if num_missing == len(judged):
        raise UserError(
            f"{qrels_path}: none of its {len(judged)} judged documents is in the corpus, not even "
            f"{judged[0]!r}; check that the corpus and the qrels belong together"
        )
    if num_missing or num_empty:
        logger.warning(
            "%s: %d of %d documents are empty and %d of %d judged documents are not in the corpus; "
            "kept as they are",
            name,
            num_empty,
            len(corpus),
            num_missing,
            len(judged),
        )
