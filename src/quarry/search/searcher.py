"""Search an index by texts: encode queries, find the best documents, show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quarry.errors import UserError
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.fusion import reciprocal_rank_fusion
from quarry.search.search_index import NO_ROW, check_top_k
from quarry.types import Document, Query

MIN_DEPTH = 100
"""Documents that hybrid search takes from each ranking, if more are not asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """A document that was found.

    Attributes:
        score: inner product of the embeddings, a cosine where the model normalizes them; of hybrid
            search the sum of 1 / (60 + rank) in both rankings.
    """

    document: Document
    score: float


class Searchable(Protocol):
    """An index, or several as one."""

    def search(
        self, query_vectors: NDArray[np.float32], top_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...

    def search_words(
        self, text: str, top_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...

    def document(self, row: int) -> Document: ...


class Searcher:
    """Index and encoder together: texts in, ranked documents out.

    Args:
        index: its vectors were made by the same model and contract as the encoder's, see
            `contract_check.check_contract`.
        encoder: encodes queries.
    """

    def __init__(self, index: Searchable, encoder: TextEncoder) -> None:
        self.index = index
        self.encoder = encoder

    def search(
        self, texts: Sequence[str], top_k: int = 10, hybrid: bool = False
    ) -> list[list[Hit]]:
        """Return the best documents of each text, best first.

        A text that is longer than the model's queries is truncated as the model's contract says.

        Args:
            top_k: documents a query, or all of a smaller corpus.
            hybrid: fuse the ranking by embeddings with that by BM25 (reciprocal rank fusion).

        Raises:
            UserError: a text is empty, `top_k` is below 1, or the index has no BM25.
        """
        if isinstance(texts, str):
            raise UserError("texts: a text was given (a list of texts is needed). Fix: [text]")
        check_top_k(top_k)
        check_texts(texts)
        if not texts:
            return []
        queries = [Query(query_id=str(i), text=text) for i, text in enumerate(texts)]
        encoded = self.encoder.encode(queries, "query")[:]
        vectors = encoded.float().cpu().numpy()
        depth = max(top_k, MIN_DEPTH) if hybrid else top_k
        found = zip(*self.index.search(vectors, depth), strict=True)
        hits = [self._hits(rows, scores) for rows, scores in found]
        if not hybrid:
            return hits
        return [
            self._fused(own, self._hits(*self.index.search_words(text, depth)), top_k=top_k)
            for text, own in zip(texts, hits, strict=True)
        ]

    def _hits(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
        return [
            Hit(document=self.index.document(row), score=score)
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
            if row != NO_ROW
        ]

    def _fused(self, dense: list[Hit], lexical: list[Hit], *, top_k: int) -> list[Hit]:
        documents = {hit.document.document_id: hit.document for hit in [*dense, *lexical]}
        runs = [
            {"": {hit.document.document_id: hit.score for hit in hits}} for hits in (dense, lexical)
        ]
        fused = reciprocal_rank_fusion(runs, top_k=top_k).get("", {})
        return [Hit(document=documents[name], score=score) for name, score in fused.items()]


def check_texts(texts: Sequence[str]) -> None:
    """Refuse queries without a text."""
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise UserError(f"query {number} of {len(texts)}: is empty (a text). Fix: give it one")
