"""Several rankings of the same queries made into one, by the ranks alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from quarry.errors import UserError
from quarry.metrics.ranking import rank
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.retriever import Retriever
from quarry.types import RetrievalSet, Run


def reciprocal_rank_fusion(runs: Sequence[Run], *, top_k: int, k: int = 60) -> Run:
    """Sum 1 / (k + rank) over the runs that hold a document, ranks from 1 (Cormack et al. 2009).

    The result does not depend on the order of `runs`. Scores have fp32 precision, that of
    trec_eval, which would otherwise see ties that are none here and order them anew.

    Args:
        runs: rankings; ranks are those of the scores, ties by document id descending.
        top_k: documents to keep for a query.
        k: damps the weight of the first ranks; 60 in the paper.

    Returns:
        A ranking for each query of any run.
    """
    if k < 0:
        raise UserError(f"reciprocal rank fusion: k is {k}, it must be 0 or more (60 is usual)")
    fused: Run = {}
    for query_id in dict.fromkeys(query_id for run in runs for query_id in run):
        shares: dict[str, list[float]] = {}
        for run in runs:
            for place, document_id in enumerate(rank(run.get(query_id, {})), start=1):
                shares.setdefault(document_id, []).append(1 / (k + place))
        # fsum rounds once, so that equal shares in another order cannot make unequal sums.
        scores = {
            document_id: float(np.float32(math.fsum(terms)))
            for document_id, terms in shares.items()
        }
        fused[query_id] = {document_id: scores[document_id] for document_id in rank(scores)[:top_k]}
    return fused


class HybridRetriever:
    """Asks each retriever for its best documents and fuses their ranks.

    Args:
        retrievers: name -> retriever, two or more.
        k: see `reciprocal_rank_fusion`.
    """

    def __init__(self, *, retrievers: Mapping[str, Retriever], k: int = 60) -> None:
        if len(retrievers) < 2:
            raise UserError(
                f"a hybrid retriever has {len(retrievers)} retriever(s), it needs two or more: "
                "use a single one as it is"
            )
        self.retrievers = tuple(retrievers.values())
        self.k = k

    @property
    def name(self) -> str:
        """The names of the parts, `bm25+dense`."""
        return "+".join(retriever.name for retriever in self.retrievers)

    @property
    def uses_encoder(self) -> bool:
        return any(retriever.uses_encoder for retriever in self.retrievers)

    def retrieve(
        self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None = None
    ) -> Run:
        """The fused ranking of the `top_k` best documents of each retriever."""
        runs = [
            retriever.retrieve(dataset, top_k=top_k, encoder=encoder)
            for retriever in self.retrievers
        ]
        return reciprocal_rank_fusion(runs, k=self.k, top_k=top_k)
