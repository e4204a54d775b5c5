"""Exact search against a plain sort of all scores, ties included."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from quarry.errors import UserError
from quarry.metrics.ranking import rank_documents
from quarry.retrieval.embeddings import Embeddings
from quarry.retrieval.index.exact import ExactIndex
from quarry.types import Run

NUM_DOCUMENTS = 40
CHUNKS = pytest.mark.parametrize("chunk", [1, 3, NUM_DOCUMENTS, 1000])


def search(
    queries: Embeddings,
    documents: Embeddings,
    *,
    top_k: int,
    chunk: int = 1000,
    query_chunk: int = 1000,
) -> Run:
    return ExactIndex(num_documents_per_chunk=chunk, num_queries_per_chunk=query_chunk).search(
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
        run[f"q{i}"] = {
            document_id: by_id[document_id] for document_id in rank_documents(by_id)[:top_k]
        }
    return run


def assert_same(run: Run, expected: Run) -> None:
    assert list(run) == list(expected)
    for query_id, scores in run.items():
        assert list(scores.items()) == list(expected[query_id].items()), query_id


def integers(num_documents: int, num_levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_levels)
    queries = torch.randint(-num_levels, num_levels + 1, (6, 4), generator=generator).float()
    documents = torch.randint(num_levels, (num_documents, 4), generator=generator).float()
    return queries, documents


@CHUNKS
@pytest.mark.parametrize("query_chunk", [1, 4, 1000])
@pytest.mark.parametrize("top_k", [1, 5, NUM_DOCUMENTS, 100])
@pytest.mark.parametrize("num_levels", [1, 2, 5, 1000])
def test_equals_brute_force(chunk: int, query_chunk: int, top_k: int, num_levels: int) -> None:
    """Whole numbers, which fp32 multiplies and adds exactly in any order; few levels tie a lot."""
    queries, documents = integers(NUM_DOCUMENTS, num_levels)
    assert_same(
        search(queries, documents, top_k=top_k, chunk=chunk, query_chunk=query_chunk),
        brute_force(queries.double(), documents.double(), top_k=top_k),
    )


@pytest.mark.parametrize("num_levels", [1, 2, 3, 30])
@pytest.mark.parametrize(("chunk", "top_k"), [(512, 3), (512, 40), (256, 1), (1024, 700)])
def test_equals_brute_force_over_blocks(chunk: int, top_k: int, num_levels: int) -> None:
    """Chunks that are looked at in blocks; also where all blocks tie, for some queries or all."""
    queries, documents = integers(1500, num_levels)
    assert_same(
        search(queries, documents, top_k=top_k, chunk=chunk),
        brute_force(queries.double(), documents.double(), top_k=top_k),
    )


@pytest.mark.parametrize("is_ascending", [True, False])
def test_scores_in_order(is_ascending: bool) -> None:
    """Every document better than all before it: none can be ruled out; or the other way round."""
    documents = torch.arange(1500.0)[:, None] * (1 if is_ascending else -1)
    queries = torch.tensor([[1.0], [-1.0], [0.0]])  # the last: all scores are 0, or minus 0
    assert_same(
        search(queries, documents, top_k=20, chunk=256),
        brute_force(queries, documents, top_k=20),
    )


@pytest.mark.parametrize("num_queries", [1, 7, 50])
def test_equal_documents_tie_wherever_they_stand(num_queries: int) -> None:
    """The same numbers in another chunk, or beside filling, must be added in the same order."""
    generator = torch.Generator().manual_seed(0)
    queries = normalize(torch.randn(num_queries, 96, generator=generator), dim=1)
    once = normalize(torch.randn(41, 96, generator=generator), dim=1)
    run = search(queries, once.repeat(5, 1), top_k=205, chunk=64)
    for scores in run.values():
        assert len(set(scores.values())) <= len(once)
        ranked = [int(document_id[1:]) for document_id in scores]
        for copies in zip(*[iter(ranked)] * 5, strict=True):
            assert len({row % 41 for row in copies}) == 1
            assert list(copies) == sorted(copies, key=lambda row: f"d{row}", reverse=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_loses_nothing_more(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = normalize(torch.randn(6, 64, generator=generator), dim=1).to(dtype)
    documents = normalize(torch.randn(300, 64, generator=generator), dim=1).to(dtype)
    run = search(queries, documents, top_k=10, chunk=64)
    expected = brute_force(queries.double(), documents.double(), top_k=10)
    for query_id, scores in run.items():
        assert list(scores) == list(expected[query_id])
        assert scores == pytest.approx(expected[query_id], abs=1e-6)  # fp32 sums of 64 terms


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_embeddings_mapped_from_files(tmp_path: Path, dtype: type) -> None:
    queries, documents = integers(300, 5)
    np.save(tmp_path / "queries.npy", queries.numpy().astype(dtype))
    np.save(tmp_path / "documents.npy", documents.numpy().astype(dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = search(
            np.load(tmp_path / "queries.npy", mmap_mode="r"),
            np.load(tmp_path / "documents.npy", mmap_mode="r"),
            top_k=20,
            chunk=64,
            query_chunk=4,
        )
    assert_same(run, brute_force(queries, documents, top_k=20))


def test_a_score_that_is_no_number_is_an_error() -> None:
    documents = torch.ones(10, 2)
    documents[7, 0] = torch.nan
    with pytest.raises(UserError, match="a score is NaN"):
        search(torch.ones(3, 2), documents, top_k=2, chunk=4)


def test_what_the_process_set_for_products_is_left_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        search(torch.ones(1, 2), torch.ones(3, 2), top_k=2)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


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


@pytest.mark.parametrize("name", ["num_documents_per_chunk", "num_queries_per_chunk"])
def test_a_chunk_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}=0 must be at least 1"):
        ExactIndex(**{name: 0})


def test_scores_are_fp32_under_autocast() -> None:
    """An evaluation within training runs in the precision of its steps: bf16 products would tie."""
    torch.manual_seed(0)
    queries, documents = (normalize(torch.randn(n, 16), dim=-1) for n in (3, NUM_DOCUMENTS))
    expected = search(queries, documents, top_k=10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = search(queries, documents, top_k=10)
    assert_same(found, expected)
