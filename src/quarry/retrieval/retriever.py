"""Define the interface of a search method: a test collection in, a run out."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from quarry.retrieval.embeddings import TextEncoder
from quarry.types import Content, RetrievalSet, Run


class Retriever(Protocol):
    """A search method: sparse, dense or a mixture."""

    @property
    def name(self) -> str:
        """Name in reports and run files."""
        ...

    @property
    def uses_encoder(self) -> bool:
        """Whether a model is needed."""
        ...

    def retrieve(
        self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None = None
    ) -> Run:
        """Return the best documents for each query.

        Args:
            encoder: the model, for methods that use one.

        Returns:
            An entry for every query, best document first, at most `top_k` documents each, ties
            by document id descending. A query that nothing matches has an empty entry.
        """
        ...


@runtime_checkable
class LexicalRetriever(Protocol):
    """A retriever that cuts texts into terms, or has a part that does."""

    def term_tokenizer(self, content: Content) -> str | None:
        """Return a description of what splits a collection of this kind; None: nothing does."""
        ...


def no_retriever() -> None:
    """Build no baseline (conf/baseline/none.yaml)."""
