"""Fuse several rankings of the same queries: by ranks, or by weighted scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from quarry.errors import UserError
from quarry.metrics.ranking import Ties, rank_documents
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.retriever import LexicalRetriever, Retriever
from quarry.types import Content, RetrievalSet, Run


class Fusion(Protocol):
    """Fuses several rankings into one, of `top_k` documents a query."""

    def __call__(self, runs: Sequence[Run], *, top_k: int) -> Run: ...


def reciprocal_rank_fusion(
    runs: Sequence[Run], *, top_k: int, k: int = 60, ties: Ties = "descending"
) -> Run:
    """Sum 1 / (k + rank) over the runs that rank a document, ranks from 1 (Cormack et al. 2009).

    The result does not depend on the order of `runs`. Scores have fp32 precision, that of
    trec_eval, which would otherwise see ties where there are none, and reorder them.

    Args:
        runs: rankings; ranks follow from the scores.
        top_k: number of documents per query in the result.
        k: damps the weight of the first ranks; 60 in the paper.
        ties: tie-breaking by document id, in `runs` and in the result.

    Returns:
        A ranking for each query of any run.
        A ranking for each query of any run.
    """
    if k < 0:
        raise UserError(f"reciprocal rank fusion: k is {k}, it must be 0 or more (60 is usual)")

    def shares(scores: Mapping[str, float]) -> dict[str, float]:
        return {
            name: 1 / (k + place)
            for place, name in enumerate(rank_documents(scores, ties=ties), start=1)
        }

    return _summed(runs, [shares] * len(runs), top_k=top_k, ties=ties)


def score_mixture(runs: Sequence[Run], *, top_k: int, weights: Sequence[float]) -> Run:
    """Sum the weighted scores of the runs, each query's scores in each run scaled to 0..1.

    The scaling is min-max over the run's documents for the query: the first has 1, the last 0, and
    if all are equal each has 1. A document that a run lacks has 0, as the last of its list (Wang et
    al. 2021, "BERT-based dense retrievers require interpolation with BM25", and PromptReps mix BM25
    and dense scores so). Scores have fp32 precision.

    Args:
        runs: rankings.
        top_k: number of documents per query in the result.
        weights: one for each run, 0 or more, not all 0; they are divided by their sum.

    Returns:
        A ranking for each query of any run.
    """
    total = math.fsum(weights)
    if len(weights) != len(runs) or min(weights, default=0) < 0 or not total > 0:
        raise UserError(
            f"score mixture: weights are {list(weights)} for {len(runs)} rankings; give one for "
            "each, in their order, 0 or more and not all 0"
        )

    def scaled(weight: float) -> Callable[[Mapping[str, float]], dict[str, float]]:
        return lambda scores: {n: weight / total * v for n, v in _min_max(scores).items()}

    return _summed(runs, [scaled(weight) for weight in weights], top_k=top_k)


class HybridRetriever:
    """Retriever that fuses the rankings of several retrievers.

    Args:
        retrievers: name -> retriever, two or more.
        fusion: fuses their rankings, in their order.
        depth: documents per query that each retriever returns, if more than in the result; None: as
            many as in the result.
        name: name in reports; None: the names of the parts, `bm25+dense`.

    Raises:
        UserError: fewer than two retrievers, a depth below 1, or a fusion for another number.
    """

    def __init__(
        self,
        *,
        retrievers: Mapping[str, Retriever],
        fusion: Fusion,
        depth: int | None = None,
        name: str | None = None,
    ) -> None:
        if len(retrievers) < 2:
            raise UserError(
                f"a hybrid retriever has {len(retrievers)} retriever(s), it needs two or more: "
                "use a single one as it is"
            )
        if depth is not None and depth < 1:
            raise UserError(f"retriever.depth={depth} must be at least 1 (documents a query)")
        fusion([{} for _ in retrievers], top_k=1)  # a wrong fusion raises now, not at the end
        self.retrievers = tuple(retrievers.values())
        self.fusion = fusion
        self.depth = depth
        self.name = name or "+".join(retriever.name for retriever in self.retrievers)

    @property
    def uses_encoder(self) -> bool:
        return any(retriever.uses_encoder for retriever in self.retrievers)

    def term_tokenizer(self, content: Content) -> str | None:
        """Return a description of what the lexical parts split a collection into terms with."""
        lexical = [part for part in self.retrievers if isinstance(part, LexicalRetriever)]
        found = [part.term_tokenizer(content) for part in lexical]
        return "; ".join(dict.fromkeys(name for name in found if name)) or None

    def retrieve(
        self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None = None
    ) -> Run:
        """Return the `top_k` best of the fused ranking, without the self matches of the set.

        They are removed before the fusion: a document that is the query itself ranks first
        everywhere. It would shift all ranks by one and compress all scaled scores.
        """
        # `top_k` has room for one self match, and so has what is asked of the parts
        spare = 1 if dataset.self_matches else 0
        depth = max(top_k - spare, self.depth or 1)
        runs = [
            without_self_matches(
                retriever.retrieve(dataset, top_k=depth + spare, encoder=encoder),
                dataset.self_matches,
                top_k=depth,
            )
            for retriever in self.retrievers
        ]
        return self.fusion(runs, top_k=top_k)


def without_self_matches(
    run: Run, self_matches: Mapping[str, str], *, top_k: int | None = None
) -> Run:
    """Return the first `top_k` documents of each ranking without the self matches.

    Args:
        self_matches: see `RetrievalSet`; where there are none, the run is returned as it is.
        top_k: None: all documents.
    """
    if not self_matches:
        return run
    kept: Run = {}
    for query_id, scores in run.items():
        own = self_matches.get(query_id)
        others = [document_id for document_id in scores if document_id != own]
        kept[query_id] = {document_id: scores[document_id] for document_id in others[:top_k]}
    return kept


def _summed(
    runs: Sequence[Run],
    share_functions: Sequence[Callable[[Mapping[str, float]], dict[str, float]]],
    *,
    top_k: int,
    ties: Ties = "descending",
) -> Run:
    """Sum what each run's function makes of its scores, and rank the sums."""
    fused: Run = {}
    for query_id in dict.fromkeys(query_id for run in runs for query_id in run):
        shares: dict[str, list[float]] = {}
        for run, share_function in zip(runs, share_functions, strict=True):
            for document_id, share in share_function(run.get(query_id, {})).items():
                shares.setdefault(document_id, []).append(share)
        # fsum rounds once, so that equal shares in another order cannot give unequal sums
        scores = {
            document_id: float(np.float32(math.fsum(terms)))
            for document_id, terms in shares.items()
        }
        best = rank_documents(scores, ties=ties)[:top_k]
        fused[query_id] = {document_id: scores[document_id] for document_id in best}
    return fused


def _min_max(scores: Mapping[str, float]) -> dict[str, float]:
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    if low == high:
        return dict.fromkeys(scores, 1.0)
    return {document_id: (score - low) / (high - low) for document_id, score in scores.items()}
