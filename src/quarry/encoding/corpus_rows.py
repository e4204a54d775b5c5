"""Show some rows of a corpus as documents or as queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from quarry.types import Document, Query


class CorpusRows(Sequence[Document]):
    """Consecutive documents of a corpus."""

    def __init__(self, corpus: Sequence[Document], rows: range) -> None:
        self._corpus = corpus
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | Sequence[Document]:
        rows = self._rows[index]
        if isinstance(rows, int):
            return self._corpus[rows]
        if rows.step == 1:
            return self._corpus[rows.start : rows.stop]
        return [self._corpus[row] for row in rows]


class QueryRows(Sequence[Query]):
    """Documents as queries."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = documents

    def __len__(self) -> int:
        return len(self._documents)

    @overload
    def __getitem__(self, index: int) -> Query: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Query]: ...
    def __getitem__(self, index: int | slice) -> Query | Sequence[Query]:
        found = self._documents[index]
        if isinstance(found, Document):
            return _query(found)
        return [_query(document) for document in found]


def _query(document: Document) -> Query:
    return Query(query_id=document.document_id, text=document.text)
