"""Exact search against a plain sort of all scores, ties included."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from quarry.metrics.ranking import rank
from quarry.retrieval.index.exact import ExactIndex, top_k_with_ties
from quarry.types import Run

NUM_DOCUMENTS = 40
CHUNKS = pytest.mark.parametrize("chunk", [1, 3, NUM_DOCUMENTS, 1000])


def search(queries: torch.Tensor, documents: torch.Tensor, *, top_k: int, chunk: int = 1000) -> Run:
    return ExactIndex(num_documents_per_chunk=chunk).search(
        query_ids=[f"q{i}" for i in range(len(queries))],
        queries=queries,
        document_ids=[f"d{i}" for i in range(len(documents))],
        documents=documents,
        top_k=top_k,
    )


def brute_force(queries: torch.Tensor, documents: torch.Tensor, *, top_k: int) -> Run:
    run: Run = {}
    for i, scores in enumerate((queries @ documents.T).tolist()):
        by_id = {f"d{j}": score for j, score in enumerate(scores)}
        run[f"q{i}"] = {document_id: by_id[document_id] for document_id in rank(by_id)[:top_k]}
    return run


def assert_same(run: Run, expected: Run) -> None:
    assert list(run) == list(expected)
    for query_id, scores in run.items():
        assert list(scores.items()) == list(expected[query_id].items()), query_id


@CHUNKS
@pytest.mark.parametrize("top_k", [1, 5, NUM_DOCUMENTS, 100])
@pytest.mark.parametrize("num_levels", [1, 2, 5, 1000])
def test_equals_brute_force(chunk: int, top_k: int, num_levels: int) -> None:
    """Whole numbers, which fp32 multiplies and adds exactly in any order; few levels tie a lot."""
    generator = torch.Generator().manual_seed(num_levels)
    queries = torch.randint(num_levels, (6, 4), generator=generator).float()
    documents = torch.randint(num_levels, (NUM_DOCUMENTS, 4), generator=generator).float()
    assert_same(
        search(queries, documents, top_k=top_k, chunk=chunk),
        brute_force(queries, documents, top_k=top_k),
    )


@CHUNKS
def test_embeddings_of_length_1(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = normalize(torch.randn(6, 16, generator=generator), dim=1)
    documents = normalize(torch.randn(NUM_DOCUMENTS, 16, generator=generator), dim=1)
    run = search(queries, documents, top_k=10, chunk=chunk)
    expected = brute_force(queries.double(), documents.double(), top_k=10)
    for query_id, scores in run.items():
        assert list(scores) == list(expected[query_id])
        assert scores == pytest.approx(expected[query_id], abs=1e-6)  # fp32 sums of 16 terms


@CHUNKS
def test_ties_go_to_the_greater_document_id(chunk: int) -> None:
    run = search(torch.ones(1, 2), torch.ones(NUM_DOCUMENTS, 2), top_k=4, chunk=chunk)
    assert list(run["q0"]) == ["d9", "d8", "d7", "d6"]  # as text, d9 > d39


def test_more_asked_for_than_there_are() -> None:
    run = search(torch.tensor([[1.0]]), torch.tensor([[1.0], [3.0], [2.0]]), top_k=10)
    assert list(run["q0"].items()) == [("d1", 3.0), ("d2", 2.0), ("d0", 1.0)]


def test_no_document_and_no_query() -> None:
    assert search(torch.ones(2, 3), torch.empty(0, 3), top_k=5) == {"q0": {}, "q1": {}}
    assert search(torch.empty(0, 3), torch.ones(2, 3), top_k=5) == {}


def test_scores_are_plain_fp32_numbers() -> None:
    run = search(torch.tensor([[0.1]]), torch.tensor([[0.7]]), top_k=1)
    assert type(run["q0"]["d0"]) is float
    assert run["q0"]["d0"] == (torch.tensor(0.1) * torch.tensor(0.7)).item()


def test_rows_with_and_without_border_ties() -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0, 2.0], [4.0, 3.0, 2.0, 1.0], [5.0, 5.0, 5.0, 9.0]])
    priority = torch.tensor([[0, 3, 2, 1]]).expand(3, -1)
    values, columns = top_k_with_ties(scores, priority, 2)
    assert columns.tolist() == [[3, 2], [0, 1], [3, 0]]
    assert values.tolist() == [[2, 2], [4, 3], [9, 5]]


def test_scores_are_fp32_under_autocast() -> None:
    """An evaluation within training runs in the precision of its steps: bf16 products would tie."""
    torch.manual_seed(0)
    queries, documents = (normalize(torch.randn(n, 16), dim=-1) for n in (3, NUM_DOCUMENTS))
    expected = search(queries, documents, top_k=10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = search(queries, documents, top_k=10)
    assert_same(found, expected)
