"""Search several index folders as one: the shards of a corpus."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from quarry.errors import UserError
from quarry.retrieval.index.top_k import TopK, merge_top_k
from quarry.search.search_index import NO_ROW, SearchIndex
from quarry.types import Document


class JoinedIndexes:
    """Several indexes of one model, whose documents differ, as one.

    Rows count through the indexes in their order. Each is searched, and the best documents of each
    are merged to the ranking of one index with all documents.

    Args:
        indexes: one or more, of the same contract.

    Raises:
        UserError: their contracts differ.
    """

    def __init__(self, indexes: Sequence[SearchIndex]) -> None:
        digests = {index.manifest.digest for index in indexes}
        if len(digests) > 1:
            raise UserError(
                f"task.index=[{','.join(str(index.folder) for index in indexes)}]: are of "
                f"{len(digests)} models or contracts, whose scores cannot be compared. Fix: name "
                "indexes of one model"
            )
        self.indexes = tuple(indexes)
        sizes = [len(index) for index in indexes]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def search(
        self, query_vectors: NDArray[np.float32], top_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and scores of the best documents of all indexes; see `SearchIndex.search`.

        Raises:
            UserError: two indexes have a document of one id.
        """
        found = [index.search(query_vectors, top_k) for index in self.indexes]
        rows = np.concatenate(
            [
                np.where(part == NO_ROW, NO_ROW, part + start)
                for (part, _), start in zip(found, self._starts[:-1], strict=True)
            ],
            axis=1,
        )
        places = self._places(rows)
        widths = [part.shape[1] for part, _ in found]
        parts = [
            TopK(scores=torch.from_numpy(scores), places=torch.from_numpy(own))
            for (_, scores), own in zip(
                found, np.split(places, np.cumsum(widths)[:-1], axis=1), strict=True
            )
        ]
        merged = merge_top_k(parts, top_k=min(top_k, rows.shape[1]))
        row_of = {int(place): int(row) for place, row in zip(places.flat, rows.flat, strict=True)}
        best = np.vectorize(row_of.__getitem__, otypes=[np.int64])(merged.places.numpy())
        return best, merged.scores.numpy()

    def search_words(self, text: str, top_k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search the words of the only index; see `check_hybrid`."""
        self.check_hybrid(True)
        return self.indexes[0].search_words(text, top_k)

    def check_hybrid(self, hybrid: bool) -> None:
        """Refuse hybrid search of several indexes, whose word counts differ, or without BM25."""
        if hybrid and len(self.indexes) > 1:
            raise UserError(
                f"hybrid=true: {len(self.indexes)} indexes are searched, and scores of BM25 cannot "
                "be compared between them. Fix: build one index, or search without hybrid"
            )
        if hybrid:
            self.indexes[0].check_lexical()

    def document(self, row: int) -> Document:
        """Return the document of a row, counted through all indexes."""
        if not 0 <= row < len(self):
            raise UserError(f"row={row}: the indexes have rows 0 to {len(self) - 1}")
        number = bisect.bisect_right(self._starts, row) - 1
        return self.indexes[number].document(row - self._starts[number])

    def row_of(self, document_id: str) -> int:
        """Return the row of a document.

        Raises:
            UserError: no index has a document of that id.
        """
        for index, start in zip(self.indexes, self._starts, strict=False):
            if index.has(document_id):
                return int(start) + index.row_of(document_id)
        return self.indexes[0].row_of(document_id)  # raises

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the place of each found document by id descending, among those that were found.

        Documents that were not found cannot change the order of those that were.
        """
        ids = {row: self.document(row).document_id for row in np.unique(rows[rows != NO_ROW])}
        if len(set(ids.values())) < len(ids):
            twice = next(name for name in ids.values() if list(ids.values()).count(name) > 1)
            raise UserError(
                f"task.index: the document {twice[:200]!r} is in two of the indexes (each document "
                "may be in one). Fix: name each shard once, and shards of one corpus"
            )
        ordered = sorted(ids, key=lambda row: ids[row], reverse=True)
        place = {row: number for number, row in enumerate(ordered)} | {NO_ROW: len(ordered)}
        found: NDArray[np.int64] = np.vectorize(place.__getitem__, otypes=[np.int64])(rows)
        return found
