"""Rank a test collection with BM25, the lexical baseline, for text and for code."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quarry.data import prompts
from quarry.distributed import world
from quarry.errors import UserError
from quarry.retrieval import porter, tie_breaking, word_break_classes, words
from quarry.retrieval.cached_rankings import CachedRankings, code_digest, versions_of
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.index import inverted
from quarry.retrieval.terms import Analyzer, CodeAnalyzer, TextAnalyzer
from quarry.runtime.progress import tracked
from quarry.types import Content, RetrievalSet, Run

if TYPE_CHECKING:  # bm25s is imported where it is used
    from bm25s import BM25

__all__ = ["Analyzer", "BM25Retriever", "CodeAnalyzer", "TextAnalyzer"]

logger = logging.getLogger(__name__)

PACKAGES = ("bm25s", "PyStemmer", "numpy", "scipy")
"""Packages on which the scores and their order depend: part of the key of cached rankings."""

ANALYZER = (words, word_break_classes, porter)
"""Modules of `TextAnalyzer`: part of the key of cached rankings."""


class BM25Retriever:
    """BM25 with Anserini's and Pyserini's settings, by bm25s (Lù 2024, arXiv 2407.03618).

    The index is built in memory for each call. A document is its title, a space and its text, as in
    Pyserini's flat indexes. On four collections each query has the nDCG@10 of Anserini 1.7.1, ties
    by document id ascending.

    Args:
        tokenizers: kind of a collection ("text", "code") -> its tokenizer.
        k1: saturation of the term frequency.
        b: strength of the length normalization, 0..1.
        rounds_lengths: see `bm25_weights`; False: exact lengths.
        cache_dir: folder that caches rankings, keyed by the texts and all settings; None: no cache.
    """

    name = "bm25"
    uses_encoder = False

    def __init__(
        self,
        *,
        tokenizers: Mapping[Content, Analyzer],
        k1: float = 0.9,
        b: float = 0.4,
        rounds_lengths: bool = True,
        cache_dir: str | Path | None = None,
    ) -> None:
        if k1 < 0 or not 0 <= b <= 1:
            raise UserError(f"bm25: k1 = {k1} and b = {b}, but k1 >= 0 and 0 <= b <= 1 must hold")
        self.tokenizers = tokenizers
        self.k1 = k1
        self.b = b
        self.rounds_lengths = rounds_lengths
        self.cached = None if cache_dir is None else CachedRankings(Path(cache_dir) / "rankings")

    def retrieve(
        self, dataset: RetrievalSet, *, top_k: int, encoder: TextEncoder | None = None
    ) -> Run:
        """Rank the documents that share a term with the query, on rank 0; ignores `encoder`.

        Returns:
            An entry for every query: at most `top_k` documents, best first, exact, ties by
            document id descending; empty if no term of the query occurs in the corpus.
        """
        return world.first_does(lambda: self._cached_or_ranked(dataset, top_k=top_k))

    def term_tokenizer(self, content: Content) -> str:
        """Return a description of what splits a collection of this kind into terms."""
        tokenizer = self.tokenizers[content]
        return getattr(tokenizer, "description", None) or type(tokenizer).__qualname__

    def _cached_or_ranked(self, dataset: RetrievalSet, *, top_k: int) -> Run:
        tokenizer = self.tokenizers[dataset.content]
        settings = _settings(tokenizer)
        if self.cached is None or settings is None:
            return self._rank(dataset, tokenizer, top_k=top_k)
        own = [sys.modules[each] for each in (__name__, type(tokenizer).__module__)]
        return self.cached.get(
            lambda: self._rank(dataset, tokenizer, top_k=top_k),
            dataset=dataset,
            method=self.name,
            top_k=top_k,
            k1=self.k1,
            b=self.b,
            rounds_lengths=self.rounds_lengths,
            tokenizer=[type(tokenizer).__qualname__, settings],
            packages=versions_of(PACKAGES),
            code=code_digest([*own, *ANALYZER, inverted, tie_breaking, prompts]),
        )

    def _rank(self, dataset: RetrievalSet, tokenizer: Analyzer, *, top_k: int) -> Run:
        start = time.perf_counter()
        corpus = tracked(dataset.corpus, label=f"bm25 index of {dataset.name}", units="documents")
        terms = inverted.count_terms(
            tokenizer(prompts.joined_text(document)) for document in corpus
        )
        if not terms.vocabulary:
            logger.warning("bm25: no document of %s has a term, nothing is found", dataset.name)
            return {query.query_id: {} for query in dataset.queries}
        engine = self._engine(terms)
        logger.info(
            "bm25: indexed %d documents of %s, %d terms, in %.1f s",
            len(dataset.corpus),
            dataset.name,
            len(terms.vocabulary),
            time.perf_counter() - start,
        )
        document_ids = [document.document_id for document in dataset.corpus]
        order = tie_breaking.tie_order(document_ids)
        run: Run = {}
        for query in tracked(dataset.queries, label=f"bm25 on {dataset.name}", units="queries"):
            in_query = tokenizer(query.text)
            term_ids = [terms.vocabulary[term] for term in in_query if term in terms.vocabulary]
            scores = engine.get_scores_from_ids(term_ids)
            best = tie_breaking.top_k_by_score(scores, order, k=top_k)
            run[query.query_id] = {
                document_ids[position]: float(scores[position])
                for position in best[scores[best] > 0]
            }
        return run

    def _engine(self, terms: inverted.TermCounts) -> BM25:
        weights = inverted.bm25_weights(
            terms, k1=self.k1, b=self.b, rounds_lengths=self.rounds_lengths
        )
        return bm25_engine(
            data=weights.data,
            indices=weights.indices,
            indptr=weights.indptr,
            num_documents=len(terms.lengths),
        )


def bm25_engine(
    *,
    data: NDArray[np.float32],
    indices: NDArray[np.integer],
    indptr: NDArray[np.integer],
    num_documents: int,
) -> BM25:
    """Return bm25s' engine for weights that are computed; it sums those of a query's terms.

    Args:
        data, indices, indptr: the compressed sparse columns of `inverted.bm25_weights`.
    """
    from bm25s import BM25

    engine = BM25(method="lucene")
    # its own index() has exact lengths only, counts empty documents, and takes twice as long
    engine.scores = {"data": data, "indices": indices, "indptr": indptr, "num_docs": num_documents}
    engine.nonoccurrence_array = None  # other variants score absent terms
    return engine


def _settings(tokenizer: object) -> dict[str, Any] | None:
    """Return the settings of a tokenizer that is a dataclass; None for others."""
    if is_dataclass(tokenizer) and not isinstance(tokenizer, type):
        return asdict(tokenizer)
    return None
