"""Rank in two stages: a retriever, then a reranker of its best documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from quarry.data.pair_tokenization import Pair
from quarry.errors import UserError
from quarry.metrics.ranking import rank_documents
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.fusion import without_self_matches
from quarry.retrieval.rerankers.pair_scorer import PairScorer
from quarry.retrieval.rerankers.reranker_spec import RerankerSpec
from quarry.retrieval.retriever import LexicalRetriever, Retriever
from quarry.types import Content, Document, Query, RetrievalSet, Run

KEY = "retriever.reranker"


class RerankedRetriever:
    """Retriever whose best documents of each query are ranked again by a reranker.

    A reranked document has the reranker's score, ties by document id descending. Below these, the
    others keep the order of the first stage; the score of the n-th of them is the lowest of the
    reranker, rounded down, minus n. The query's own document is removed before (`self_matches`).

    Args:
        first_stage: finds the documents.
        reranker: scores them with the query.
        depth: documents of a query that are reranked; may be more or fewer than in the result.
        name: name in reports; None: that of the first stage with `-reranked`.

    Raises:
        UserError: the depth is below 1, or the first stage has two stages itself.
    """

    def __init__(
        self,
        *,
        first_stage: Retriever,
        reranker: RerankerSpec,
        depth: int = 100,
        name: str | None = None,
    ) -> None:
        if depth < 1:
            raise UserError(
                f"retriever.depth={depth}: must be at least 1 (documents of a query that are "
                "reranked). Fix: retriever.depth=100"
            )
        if isinstance(first_stage, RerankedRetriever):
            raise UserError(
                "retriever.first_stage=reranked: a reranked ranking cannot be reranked. Fix: "
                "retriever@retriever.first_stage=dense"
            )
        self.first_stage = first_stage
        self.reranker = reranker
        self.depth = depth
        self.name = name or f"{first_stage.name}-reranked"
        self._scorer: PairScorer | None = None
        self._counts: dict[str, dict[str, int]] = {}

    @property
    def uses_encoder(self) -> bool:
        """Whether the first stage needs a model."""
        return self.first_stage.uses_encoder

    def term_tokenizer(self, content: Content) -> str | None:
        """Return a description of what the first stage splits a collection into terms with."""
        first = self.first_stage
        return first.term_tokenizer(content) if isinstance(first, LexicalRetriever) else None

    def check(self) -> None:
        """Refuse a reranker that is none, before anything is encoded.

        Raises:
            UserError: see `RerankerSpec.check`.
        """
        self.reranker.check(key=KEY)

    def description(self) -> dict[str, Any]:
        """Return what the reranker is and what it cut in each set, as plain data."""
        known = {} if self._scorer is None else self._scorer.description  # None: all sets failed
        return {**known, "depth": self.depth, "sets": dict(self._counts)}

    def stages(self) -> tuple[Retriever, Retriever]:
        """Return the first stage and this retriever, which takes the rankings that it has made."""
        first = FirstStage(self)
        return first, SecondStage(self, first)

    def retrieve(
        self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None = None
    ) -> Run:
        """Return the `top_k` documents of every query, on every rank."""
        run = self.first_run(dataset, top_k=top_k, encoder=encoder)
        return self.reranked(run, dataset, top_k=top_k)

    def first_run(self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None) -> Run:
        """Return the ranking of the first stage, as deep as both stages need.

        The reranker is loaded first: what is wrong with it is known before hours of encoding.
        """
        if self._scorer is None:
            self._scorer = self.reranker.load(
                key=KEY, device=None if encoder is None else encoder.device
            )
        spare = 1 if dataset.self_matches else 0
        deepest = max(top_k, self.depth + spare)
        return self.first_stage.retrieve(dataset, top_k=deepest, encoder=encoder)

    def reranked(self, first_run: Run, dataset: RetrievalSet, *, top_k: int) -> Run:
        """Return the final ranking.

        Args:
            first_run: see `first_run`.
        """
        assert self._scorer is not None, "the reranker is loaded before the first stage"
        run = without_self_matches(first_run, dataset.self_matches)
        best = {query_id: list(scores)[: self.depth] for query_id, scores in run.items()}
        pairs = _PairsOf(dataset, best)
        found = self._scorer.score(pairs, label=f"{dataset.name} reranking")
        self._counts[dataset.name] = {
            "num_pairs": len(pairs),
            "num_unique_pairs": found.num_unique,
            "num_cut_pairs": found.num_cut,  # of the unique ones
        }
        scores = iter(found.scores.tolist())
        reranked: Run = {}
        for query_id, names in best.items():
            of_query = {name: next(scores) for name in names}
            others = list(run[query_id])[self.depth :]
            of_query |= _below(min(of_query.values(), default=0.0), others)
            ranked = rank_documents(of_query)[:top_k]
            reranked[query_id] = {name: of_query[name] for name in ranked}
        return reranked


class FirstStage:
    """The first stage of a reranked retriever, which remembers its rankings for the second.

    Args:
        retriever: has the first stage.
    """

    def __init__(self, retriever: RerankedRetriever) -> None:
        self._retriever = retriever
        self._runs: dict[str, Run] = {}
        self.name = retriever.first_stage.name

    @property
    def uses_encoder(self) -> bool:
        return self._retriever.uses_encoder

    def term_tokenizer(self, content: Content) -> str | None:
        """Return a description of what splits a collection into terms."""
        return self._retriever.term_tokenizer(content)

    def retrieve(
        self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None = None
    ) -> Run:
        """Return the `top_k` documents of every query."""
        run = self._retriever.first_run(dataset, top_k=top_k, encoder=encoder)
        self._runs[dataset.name] = run
        return {query_id: dict(list(scores.items())[:top_k]) for query_id, scores in run.items()}

    def take(self, dataset: RetrievalSet) -> Run | None:
        """Return the ranking of a set as deep as it was made, once; None: it was not made."""
        return self._runs.pop(dataset.name, None)


class SecondStage:
    """A reranked retriever that takes the rankings of its first stage where they are made.

    Args:
        retriever: reranks.
        first: was asked for the same sets with the same `top_k` and encoder.
    """

    def __init__(self, retriever: RerankedRetriever, first: FirstStage) -> None:
        self._retriever = retriever
        self._first = first
        self.name = retriever.name

    @property
    def uses_encoder(self) -> bool:
        return self._retriever.uses_encoder

    def term_tokenizer(self, content: Content) -> str | None:
        """Return a description of what the first stage splits a collection into terms with."""
        return self._retriever.term_tokenizer(content)

    def retrieve(
        self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None = None
    ) -> Run:
        """Return the `top_k` documents of every query, on every rank."""
        run = self._first.take(dataset)
        if run is None:
            return self._retriever.retrieve(dataset, top_k=top_k, encoder=encoder)
        return self._retriever.reranked(run, dataset, top_k=top_k)


def stages_of(retriever: Retriever) -> tuple[Retriever, ...]:
    """Return the retrievers of which each is reported: two of a reranked one, else itself."""
    return retriever.stages() if isinstance(retriever, RerankedRetriever) else (retriever,)


class _PairsOf(Sequence[Pair]):
    """The pairs of rankings, query by query; texts are read from the collection when accessed."""

    def __init__(self, dataset: RetrievalSet, best: dict[str, list[str]]) -> None:
        self._queries = {query.query_id: query for query in dataset.queries}
        self._corpus = dataset.corpus
        wanted = {name for names in best.values() for name in names}
        self._rows = {
            document.document_id: row
            for row, document in enumerate(dataset.corpus)
            if document.document_id in wanted
        }
        self._names = [name for names in best.values() for name in names]
        self._query_ids = list(best)
        self._ends = np.cumsum([len(names) for names in best.values()])

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]  # also from the end
        query_id = self._query_ids[int(np.searchsorted(self._ends, number, side="right"))]
        query: Query = self._queries[query_id]
        document: Document = self._corpus[self._rows[self._names[number]]]
        return query, document


def _below(lowest: float, names: Sequence[str]) -> dict[str, float]:
    """Return scores below the lowest of the reranker that fall in the order of the names.

    They differ in fp32, in which trec_eval compares scores.
    """
    base = float(np.floor(lowest))
    step = max(1.0, 2 * float(np.spacing(np.float32(abs(base) + len(names)))))
    return {name: base - step * place for place, name in enumerate(names, start=1)}
