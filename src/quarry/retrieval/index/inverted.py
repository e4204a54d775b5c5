"""Build an inverted index with BM25 weights: term -> documents with the term, and its weights."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_EXACT_LENGTHS = 24
"""Lucene stores exact lengths of shorter documents, and four bits of longer ones."""


@dataclass(frozen=True, kw_only=True)
class TermCounts:
    """Counts of terms in documents.

    Attributes:
        vocabulary: term -> its number.
        counts: scipy's compressed sparse columns [num_documents, num_terms].
        lengths: [num_documents] int64, terms in each document.
    """

    vocabulary: dict[str, int]
    counts: Any
    lengths: NDArray[np.int64]


def count_terms(documents: Iterable[list[str]]) -> TermCounts:
    """Count the terms of each document; terms are numbered as they first appear."""
    from scipy.sparse import csr_matrix

    vocabulary: dict[str, int] = {}
    term_ids, lengths = array("i"), array("q")
    for terms in documents:
        term_ids.extend([vocabulary.setdefault(term, len(vocabulary)) for term in terms])
        lengths.append(len(terms))
    num_terms = np.frombuffer(lengths, dtype=np.int64)
    rows = csr_matrix(
        (
            np.ones(len(term_ids), dtype=np.float32),
            np.frombuffer(term_ids, dtype=np.int32),
            np.concatenate([[0], np.cumsum(num_terms)]),
        ),
        shape=(len(num_terms), len(vocabulary)),
    )
    rows.sum_duplicates()
    return TermCounts(vocabulary=vocabulary, counts=rows.tocsc(), lengths=num_terms)


def bm25_weights(terms: TermCounts, *, k1: float, b: float, rounds_lengths: bool) -> Any:
    """Return what each term adds to the score of each document that has it.

    The formula is Lucene's: idf tf / (tf + k1 (1 - b + b length / mean length)) with
    idf = ln(1 + (N - df + 0.5) / (df + 0.5)) (Kamphuis et al. 2020, "Which BM25 do you mean?"). N
    and the mean length are over the documents that have a term.

    Args:
        rounds_lengths: round to four significant bits from 24 terms on, as Lucene stores lengths.

    Returns:
        Compressed sparse columns [num_documents, num_terms] fp32, documents ascending.
    """
    num_documents = max(int(np.count_nonzero(terms.lengths)), 1)
    mean_length = terms.lengths.sum() / num_documents
    lengths = rounded_lengths(terms.lengths) if rounds_lengths else terms.lengths
    # at least 1: a corpus without a term has no entry to which this applies
    norms = k1 * (1 - b + b * lengths / max(mean_length, 1.0))
    document_counts = np.diff(terms.counts.indptr)
    idf = np.log1p((num_documents - document_counts + 0.5) / (document_counts + 0.5))
    weights = terms.counts.copy()
    weights.data = (
        np.repeat(idf, document_counts)
        * terms.counts.data
        / (terms.counts.data + norms[terms.counts.indices])
    ).astype(np.float32)
    return weights


def rounded_lengths(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return lengths as decoded from the byte in which Lucene stores them (its `SmallFloat`)."""
    over = np.maximum(lengths - NUM_EXACT_LENGTHS, 0)
    num_lost_bits = np.maximum(np.frexp(over.astype(np.float64))[1] - 4, 0).astype(np.int64)
    kept = (over >> num_lost_bits) << num_lost_bits
    return np.where(lengths < NUM_EXACT_LENGTHS, lengths, NUM_EXACT_LENGTHS + kept)
