"""Search an index folder for the server."""

from __future__ import annotations

from collections.abc import Sequence

from quarry.retrieval.embeddings import TextEncoder
from quarry.search.search_index import SearchIndex
from quarry.search.searcher import Hit, Searcher
from quarry.types import Document


class IndexSearch:
    """An index and the encoder of its queries, see `ServedIndex`.

    Args:
        index: of the encoder's model.
        encoder: encodes queries.
    """

    def __init__(self, index: SearchIndex, encoder: TextEncoder) -> None:
        self._index = index
        self._searcher = Searcher(index, encoder)

    @property
    def num_documents(self) -> int:
        """Number of documents in the index."""
        return len(self._index)

    @property
    def has_hybrid(self) -> bool:
        """Whether the index has BM25."""
        return self._index.has_lexical

    def search(self, texts: Sequence[str], *, top_k: int, hybrid: bool) -> list[list[Hit]]:
        """Return the best documents of each query, best first."""
        return self._searcher.search(texts, top_k=top_k, hybrid=hybrid)

    def document(self, document_id: str) -> Document | None:
        """Return a document by its id; None: there is none."""
        if not self._index.has(document_id):
            return None
        return self._index.document(self._index.row_of(document_id))
