"""The documents of a test collection as a memory-mapped table, whatever they were read from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quarry.data.arrow_table import LINE, ArrowTable, open_table
from quarry.errors import UserError
from quarry.types import Document, Qrels

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


def open_corpus(
    *,
    sources: Sequence[Path],
    documents: Iterable[tuple[int, Document]],
    cache_dir: Path | str,
) -> Corpus:
    """The corpus of these files, from the cache folder or, if it is not there, from `documents`.

    Args:
        sources: the files that the documents come from.
        documents: line and document; consumed only when the table is built, and never kept.
        cache_dir: where the table goes.

    Raises:
        UserError: an id that stands on two lines, or what `documents` raises.
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
    )
    return Corpus(table=table)


def is_blank(document: Document) -> bool:
    """Whether a document has neither title nor text."""
    return not (document.text.strip() or document.title.strip())


def check_judged_documents(*, name: str, qrels: Qrels, where: object, corpus: Corpus) -> None:
    """Warns of judged documents that the corpus lacks, and of empty ones; both are kept.

    Args:
        name: of the set.
        where: what holds the judgements, for the message.

    Raises:
        UserError: no judged document is in the corpus.
    """
    judged = sorted({document_id for grades in qrels.values() for document_id in grades})
    is_missing = corpus.rows_of(judged) < 0
    num_missing, num_empty = int(is_missing.sum()), int(corpus.is_empty().sum())
    if num_missing == len(judged):
        raise UserError(
            f"{where}: none of its {len(judged)} judged documents is in the corpus, not even "
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
