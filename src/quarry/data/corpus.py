"""Hold the documents of a test collection as a memory-mapped table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quarry.data.arrow_table import LINE, ArrowTable, open_table, write_table
from quarry.data.table_sources import SourceFile
from quarry.types import Document

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
    """Sequence of documents in a memory-mapped table, each created when it is accessed."""

    def __init__(self, *, table: ArrowTable) -> None:
        self._table = table

    @property
    def table(self) -> Path:
        """Return the file that holds the documents."""
        return self._table.path

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
        """Return the row of each document, -1 if the corpus lacks it: [len(document_ids)]."""
        return self._table.rows_of(document_ids, id_column="document_id")

    @property
    def sources(self) -> tuple[SourceFile, ...]:
        """The files that the documents come from."""
        return self._table.sources

    def is_empty(self) -> NDArray[np.bool_]:
        """Return which documents have neither a title nor a text: [len(self)]."""
        return self._table.column("is_empty")

    def _documents(self, start: int, stop: int) -> Iterator[Document]:
        for document_id, title, text in self._table.rows(start, stop, _DOCUMENT):
            yield Document(document_id=document_id, title=title, text=text)


def open_corpus(
    *,
    sources: Sequence[Path],
    documents: Iterable[tuple[int, Document]],
    cache_dir: Path | str,
    settings: str = "",
) -> Corpus:
    """Return the corpus of these files: from the cache folder if cached, else from `documents`.

    Args:
        sources: the files that the documents come from.
        documents: line and document; consumed only if the table is built, and not held in memory.
        cache_dir: folder for the table.
        settings: anything else that the documents depend on.

    Raises:
        UserError: an id that occurs twice, or what `documents` raises.
    """
    table = open_table(
        cache_dir=Path(cache_dir),
        kind="corpus",
        sources=sources,
        schema=_SCHEMA,
        rows=(
            (line, document.document_id, document.title, document.text, is_blank(document))
            for line, document in documents
        ),
        id_column="document_id",
        settings=settings,
    )
    return Corpus(table=table)


def write_corpus(path: Path, documents: Iterable[Document]) -> None:
    """Write documents to a table of their own, which `read_corpus` opens; ids must differ."""
    write_table(
        path,
        schema=_SCHEMA,
        rows=(
            (line, document.document_id, document.title, document.text, is_blank(document))
            for line, document in enumerate(documents, start=1)
        ),
        id_column="document_id",
    )


def read_corpus(path: Path) -> Corpus:
    """Open a table of `write_corpus`.

    Raises:
        OSError, ValueError: it is damaged, or no such table.
    """
    table = ArrowTable(path, is_used=False)
    if not table.schema.equals(_SCHEMA):
        raise ValueError(f"{path} has other columns than a table of documents")
    return Corpus(table=table)


def documents_digest(documents: Iterable[Document]) -> str:
    """Return the SHA-256 of ids, titles and texts in their order, wherever they are stored.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for document in documents:
        cells = [cell.encode() for cell in (document.document_id, document.title, document.text)]
        digest.update(b"%d %d %d " % tuple(map(len, cells)) + b"".join(cells))
    return digest.hexdigest()


def is_blank(document: Document) -> bool:
    """Return whether a document has neither title nor text."""
    return not (document.text.strip() or document.title.strip())
