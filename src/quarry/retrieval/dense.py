"""Dense retrieval: encode queries and corpus, then search exactly."""

from __future__ import annotations

from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.index.exact import ExactIndex
from quarry.types import RetrievalSet, Run


class DenseRetriever:
    """Retriever by inner product of embeddings, searched on the model's device.

    Args:
        index: searches the embeddings.
    """

    name = "dense"
    uses_encoder = True

    def __init__(self, *, index: ExactIndex) -> None:
        self.index = index

    def retrieve(
        self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None = None
    ) -> Run:
        """Return the `top_k` documents of every query in `dataset`, on every rank."""
        assert encoder is not None, "dense retrieval needs an encoder"
        queries = encoder.encode(dataset.queries, "query", label=f"{dataset.name} queries")
        share = encoder.encode_share(dataset.corpus, "document", label=f"{dataset.name} corpus")
        return self.index.search(
            query_ids=[query.query_id for query in dataset.queries],
            queries=queries,
            document_ids=[document.document_id for document in dataset.corpus],
            documents=share.embeddings,
            share=share.items,
            top_k=top_k,
            device=encoder.device,
            label=f"{dataset.name} search",
        )
