"""Present a test collection without titles, or with other document ids, without copying it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import overload

import numpy as np

from quarry.types import Document, RetrievalSet, Run


class CorpusView(Sequence[Document]):
    """Lazy view of a corpus that changes each document on access.

    Args:
        corpus: the underlying corpus; may be memory-mapped.
        change: (row, document) -> the changed document.
    """

    def __init__(
        self, *, corpus: Sequence[Document], change: Callable[[int, Document], Document]
    ) -> None:
        self._corpus = corpus
        self._change = change

    def __len__(self) -> int:
        return len(self._corpus)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            rows = range(*index.indices(len(self)))
            return [self._change(*pair) for pair in zip(rows, self._corpus[index], strict=True)]
        row = range(len(self))[index]
        return self._change(row, self._corpus[row])

    def __iter__(self) -> Iterator[Document]:
        return (self._change(row, document) for row, document in enumerate(self._corpus))


def without_titles(data: RetrievalSet) -> RetrievalSet:
    """Return the same collection with empty titles."""
    return replace(data, corpus=CorpusView(corpus=data.corpus, change=_drop_title))


class AscendingTies:
    """View of a collection that reverses tie-breaking from descending to ascending document ids.

    Retrievers break ties by descending id. They get substitute ids that sort the other way round,
    so that a cutoff among tied documents is right, too.

    Attributes:
        data: the collection under the substitute ids.
    """

    def __init__(self, data: RetrievalSet) -> None:
        ids = [document.document_id for document in data.corpus]
        rows = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
        self._ids = [ids[row] for row in rows]
        self._places = np.empty(len(ids), dtype=np.int64)
        self._places[rows] = np.arange(len(ids))
        self._num_digits = len(str(len(ids)))
        own = set(data.self_matches.values())
        new_names = {ids[row]: self._name(row) for row in rows if ids[row] in own}
        self.data = replace(
            data,
            corpus=CorpusView(corpus=data.corpus, change=self._rename),
            self_matches={
                query_id: new_names[document_id]
                for query_id, document_id in data.self_matches.items()
                if document_id in new_names
            },
        )

    def restore(self, run: Run) -> Run:
        """Return the run with the documents' own ids, in the same order."""
        return {
            query_id: {self._ids[int(name)]: score for name, score in scores.items()}
            for query_id, scores in run.items()
        }

    def _rename(self, row: int, document: Document) -> Document:
        return replace(document, document_id=self._name(row))

    def _name(self, row: int) -> str:
        return f"{self._places[row]:0{self._num_digits}d}"


def _drop_title(row: int, document: Document) -> Document:
    return replace(document, title="")
