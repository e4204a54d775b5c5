"""Term counts, Lucene's rounded lengths, and BM25's weights against bm25s and by hand."""

from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
from bm25s import BM25

from quarry.retrieval.index.inverted import bm25_weights, count_terms, rounded_lengths


def small_float(length: int) -> int:
    """Lucene's SmallFloat.byte4ToInt(intToByte4(length)), step by step."""
    num_free = 255 - 231
    if length < num_free:
        return length
    number = length - num_free
    if number < 8:
        return num_free + number
    shift = number.bit_length() - 4
    encoded = ((number >> shift) & 0x07) | ((shift + 1) << 3)
    return num_free + (((encoded & 0x07) | 0x08) << ((encoded >> 3) - 1))


def test_lengths_are_rounded_as_in_lucene() -> None:
    lengths = np.arange(100_000)
    assert rounded_lengths(lengths).tolist() == [small_float(n) for n in range(100_000)]
    assert rounded_lengths(np.array([39, 40, 41, 57, 1_000])).tolist() == [39, 40, 40, 56, 984]


def test_counts() -> None:
    terms = count_terms([["b", "a", "b"], [], ["c", "a"]])
    assert terms.vocabulary == {"b": 0, "a": 1, "c": 2}
    assert terms.lengths.tolist() == [3, 0, 2]
    assert terms.counts.toarray().tolist() == [[2, 1, 0], [0, 0, 0], [0, 1, 1]]


def test_empty_documents_count_neither_for_the_mean_length_nor_for_idf() -> None:
    weights = bm25_weights(
        count_terms([["b", "a", "b"], [], ["c", "a"]]), k1=0.9, b=0.4, rounds_lengths=True
    )
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))  # of b: one of two documents
    norm = 0.9 * (1 - 0.4 + 0.4 * 3 / 2.5)
    assert weights.toarray()[0, 0] == pytest.approx(idf * 2 / (2 + norm), rel=1e-6)


def test_exact_lengths_give_the_index_of_bm25s() -> None:
    rng = random.Random(0)
    corpus = [[f"w{rng.randrange(50)}" for _ in range(rng.randrange(1, 90))] for _ in range(200)]
    terms = count_terms(corpus)
    theirs = BM25(method="lucene", k1=0.9, b=0.4).build_index_from_ids(
        unique_token_ids=list(range(len(terms.vocabulary))),
        corpus_token_ids=[[terms.vocabulary[term] for term in document] for document in corpus],
        show_progress=False,
    )
    ours = bm25_weights(terms, k1=0.9, b=0.4, rounds_lengths=False)
    assert ours.indptr.tolist() == theirs["indptr"].tolist()
    assert ours.indices.tolist() == theirs["indices"].tolist()
    np.testing.assert_allclose(ours.data, theirs["data"], rtol=1e-6)
    rounded = bm25_weights(terms, k1=0.9, b=0.4, rounds_lengths=True)
    assert not np.allclose(rounded.data, ours.data, rtol=1e-4)


def test_a_hundred_thousand_documents_are_indexed_in_seconds() -> None:
    """Measured: 2 s on one core for documents of 60 terms. The limit leaves a busy machine room."""
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(100_000)]
    ids = np.minimum(rng.zipf(1.2, size=(100_000, 60)), len(vocabulary)) - 1
    start = time.perf_counter()
    terms = count_terms([vocabulary[i] for i in row] for row in ids.tolist())
    bm25_weights(terms, k1=0.9, b=0.4, rounds_lengths=True)
    assert time.perf_counter() - start < 20
