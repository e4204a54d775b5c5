"""Store the inverted index of BM25 beside the vectors, so that a query does not build it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quarry.data.arrow_table import LINE, ArrowTable, write_table
from quarry.data.prompts import joined_text
from quarry.retrieval.bm25 import Analyzer, CodeAnalyzer, TextAnalyzer, bm25_engine
from quarry.retrieval.index.inverted import bm25_weights, count_terms
from quarry.retrieval.tie_breaking import top_k_by_score
from quarry.types import Content, Document

TERMS = "bm25_terms.arrow"
WEIGHTS = "bm25_weights.npy"
DOCUMENTS = "bm25_documents.npy"
STARTS = "bm25_starts.npy"
FILES = (TERMS, "bm25_terms.ids.npy", WEIGHTS, DOCUMENTS, STARTS)

K1 = 0.9
B = 0.4
"""Anserini's and Pyserini's settings, as in conf/retriever/bm25.yaml."""

ANALYZERS: Mapping[Content, type[Analyzer]] = {"text": TextAnalyzer, "code": CodeAnalyzer}

_SCHEMA = pa.schema([(LINE, pa.int64()), ("term", pa.large_string())])


class LexicalIndex:
    """BM25 over the documents of an index: scores and order are those of `BM25Retriever`.

    Args:
        folder: of the index.
        content: kind of the terms.
        num_documents: in the index.

    Raises:
        OSError, ValueError: a file is damaged.
    """

    def __init__(self, folder: Path, *, content: Content, num_documents: int) -> None:
        self._analyzer = ANALYZERS[content]()
        self._terms = ArrowTable(folder / TERMS, is_used=False)
        weights, documents, starts = (
            np.load(folder / name, mmap_mode="r") for name in (WEIGHTS, DOCUMENTS, STARTS)
        )
        if len(weights) != len(documents) or len(starts) != len(self._terms) + 1:
            raise ValueError("the files of BM25 do not belong together")
        self._engine = bm25_engine(
            data=weights, indices=documents, indptr=starts, num_documents=num_documents
        )

    def search(
        self, text: str, *, places: NDArray[np.int64], top_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and scores of the best documents that share a term with the text."""
        found = self._terms.rows_of(self._analyzer(text), id_column="term")
        scores = self._engine.get_scores_from_ids(found[found >= 0].tolist())
        best = top_k_by_score(scores, places, k=top_k)
        best = best[scores[best] > 0]
        return best, scores[best]


def write_lexical(folder: Path, documents: Iterable[Document], *, content: Content) -> bool:
    """Write the inverted index of these documents; return False if none has a term."""
    analyzer = ANALYZERS[content]()
    terms = count_terms(analyzer(joined_text(document)) for document in documents)
    if not terms.vocabulary:
        return False
    weights: Any = bm25_weights(terms, k1=K1, b=B, rounds_lengths=True)
    write_table(
        folder / TERMS,
        schema=_SCHEMA,
        rows=((line, term) for line, term in enumerate(terms.vocabulary, start=1)),
        id_column="term",
    )
    np.save(folder / WEIGHTS, weights.data)
    np.save(folder / DOCUMENTS, weights.indices)
    np.save(folder / STARTS, weights.indptr)
    return True
