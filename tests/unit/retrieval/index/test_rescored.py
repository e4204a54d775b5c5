"""Candidates by fast products, ranked by exact scores: equal to scoring every document exactly."""

import numpy as np
import pytest
import torch

from quarry.errors import UserError
from quarry.retrieval.index import rescored
from quarry.retrieval.index.exact import ExactIndex
from quarry.retrieval.index.rescored import exact_scores, search_rows
from quarry.retrieval.tie_breaking import top_k_by_score

DIM = 96


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _check(queries, documents, *, top_k, seed=0):
    """Compare with the scores of all documents, ranked."""
    places = np.random.default_rng(seed).permutation(len(documents))
    norms = np.linalg.norm(documents.astype(np.float64), axis=1)
    found, scores = search_rows(
        queries=queries,
        documents=documents,
        places=places,
        largest_norm=float(norms.max()),
        top_k=top_k,
    )
    everything = np.arange(len(documents))
    for query, rows, values in zip(queries, found, scores, strict=True):
        exact = exact_scores(query, documents, everything)
        best = top_k_by_score(exact, places, k=min(top_k, len(documents)))
        assert rows.tolist() == best.tolist()
        assert values.tolist() == exact[best].tolist()


@pytest.fixture
def small_blocks(monkeypatch):
    """Let a few documents fill several blocks."""
    monkeypatch.setattr(rescored, "NUM_ROWS_PER_BLOCK", 64)
    monkeypatch.setattr(rescored, "NUM_ROWS_CONVERTED", 24)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("num_queries", [1, 3, 70])
def test_ranks_as_scoring_every_document(small_blocks, dtype, num_queries):
    generator = np.random.default_rng(num_queries)
    documents = _unit(generator.standard_normal((400, DIM))).astype(dtype)
    queries = _unit(generator.standard_normal((num_queries, DIM)))
    for top_k in (1, 10, 399, 400, 1000):
        _check(queries, documents, top_k=top_k)


@pytest.mark.parametrize("num_queries", [1, 6])
def test_near_ties_that_half_precision_cannot_tell_apart(small_blocks, num_queries):
    """All scores lie within a few units of fp16's last place: products alone order them wrongly."""
    generator = np.random.default_rng(3)
    queries = _unit(generator.standard_normal((num_queries, DIM)))
    documents = np.repeat(queries[:1], 500, axis=0)
    documents += 3e-4 * generator.standard_normal(documents.shape)
    documents = documents.astype(np.float16)
    scores = exact_scores(queries[0], documents, np.arange(500))
    assert np.ptp(scores) < 0.01
    products = torch.mv(torch.from_numpy(documents), torch.from_numpy(queries[0]).half())
    assert products.float().argsort().tolist() != scores.argsort().tolist()
    _check(queries, documents, top_k=10)


def test_differences_below_the_rounding_of_the_query(small_blocks):
    """Documents differ only where the query's entries vanish or round away in half precision."""
    generator = np.random.default_rng(4)
    query = np.full((1, DIM), 1.0, dtype=np.float32)
    query[0, 1:] = (1 + 2.0**-12) * generator.choice([-1, 1], DIM - 1) * 2.0**-9
    documents = np.zeros((300, DIM), dtype=np.float16)
    documents[:, 0] = 1
    documents[:, 1:] = generator.choice([-1, 1], (300, DIM - 1)) * 2.0**-6
    _check(query, documents, top_k=5)


def test_equal_documents_rank_by_place_and_equal_exact_search(small_blocks):
    """Small integers: every sum is exact in any precision, with many ties."""
    generator = np.random.default_rng(5)
    documents = generator.integers(-2, 3, (500, 12)).astype(np.float16)
    queries = generator.integers(-2, 3, (2, 12)).astype(np.float32)
    places = generator.permutation(500)
    found, scores = search_rows(
        queries=queries, documents=documents, places=places, largest_norm=10.0, top_k=40
    )
    exact = ExactIndex().top_k(
        queries=queries, documents=documents, places=torch.from_numpy(places), top_k=40
    )
    assert places[found].tolist() == exact.places.tolist()
    assert scores.tolist() == exact.scores.tolist()
    assert len(set(scores[0].tolist())) < 20


@pytest.mark.parametrize("size", [1e-6, 1.0, 3e4])
def test_any_length_of_vectors(size):
    """Products neither leave fp16 nor vanish in it: queries are scaled."""
    generator = np.random.default_rng(6)
    documents = generator.standard_normal((200, DIM)) * min(size, 1e4)
    queries = (generator.standard_normal((1, DIM)) * size * 1e3).astype(np.float32)
    _check(queries, documents.astype(np.float16), top_k=7)
    _check(np.zeros((1, DIM), dtype=np.float32), documents.astype(np.float16), top_k=7)


def test_coarser_products_than_the_bound_says_are_noticed(monkeypatch, caplog):
    """A machine that sums in fp16 would give wrong candidates: all documents are scored then."""
    generator = np.random.default_rng(7)
    documents = _unit(generator.standard_normal((300, DIM))).astype(np.float16)
    queries = _unit(generator.standard_normal((1, DIM)))
    plain = torch.mv

    def coarse(matrix, vector):
        return plain(matrix, vector) + 400 * torch.sin(torch.arange(len(matrix)))

    monkeypatch.setattr(torch, "mv", coarse)
    _check(queries, documents, top_k=10)
    assert "less exact here" in caplog.text


def test_a_query_that_is_not_finite_is_refused():
    documents = np.ones((3, 4), dtype=np.float16)
    queries = np.array([[1, np.nan, 0, 0]], dtype=np.float32)
    with pytest.raises(UserError, match="NaN"):
        search_rows(
            queries=queries, documents=documents, places=np.arange(3), largest_norm=2.0, top_k=1
        )


def test_few_documents_are_scored_exactly(monkeypatch):
    """The bound is tight enough to be of use: near 10 of 20,000 documents, not thousands."""
    generator = np.random.default_rng(8)
    documents = _unit(generator.standard_normal((20_000, DIM))).astype(np.float16)
    queries = _unit(generator.standard_normal((1, DIM)))
    seen = []
    plain = exact_scores
    monkeypatch.setattr(
        rescored, "exact_scores", lambda q, d, rows: seen.append(len(rows)) or plain(q, d, rows)
    )
    search_rows(
        queries=queries,
        documents=documents,
        places=np.arange(20_000),
        largest_norm=1.001,
        top_k=10,
    )
    assert 10 <= seen[0] < 100
