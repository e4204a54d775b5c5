"""Score pairs by the inner product of a bi-encoder's embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar, overload

import numpy as np

from quarry.data.pair_tokenization import Pair
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.rerankers.pair_scorer import PairScores, refuse_infinite, text_of_pair
from quarry.retrieval.unique_texts import unique_texts
from quarry.types import Document, Query

NUM_PAIRS_AT_A_TIME = 8_192
"""Pairs whose embeddings are in memory at a time."""

Item = TypeVar("Item", Query, Document)


class InnerProducts:
    """Scorer of pairs by a bi-encoder: a cosine where it normalizes its embeddings.

    Args:
        encoder: encodes equal texts once, as the embedding store does.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    def score(self, pairs: Sequence[Pair], *, label: str) -> PairScores:
        """Return the scores of pairs, in their order.

        Args:
            pairs: may be read lazily; they are read several times.
            label: name of the progress, and in messages.

        Raises:
            UserError: a score is not finite, or as the encoder raises.
        """
        queries = self.encoder.encode(_Queries(pairs), "query", label=f"{label} queries")
        documents = self.encoder.encode(_Documents(pairs), "document", label=f"{label} passages")
        scores = np.empty(len(pairs), dtype=np.float32)
        for start in range(0, len(pairs), NUM_PAIRS_AT_A_TIME):
            part = slice(start, start + NUM_PAIRS_AT_A_TIME)
            products = queries[part].float() * documents[part].float()
            scores[part] = products.sum(dim=1).cpu().numpy()
        refuse_infinite(scores, pairs, label=label)
        return PairScores(
            scores=scores, num_unique=len(unique_texts(pairs, text_of_pair)), num_cut=0
        )


class _Part(Sequence[Item], Generic[Item]):
    """The queries or the documents of pairs, read when they are accessed."""

    place: int

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [pair[self.place] for pair in self._pairs[index]]  # type: ignore[misc]
        return self._pairs[index][self.place]  # type: ignore[return-value]


class _Queries(_Part[Query]):
    place = 0


class _Documents(_Part[Document]):
    place = 1
