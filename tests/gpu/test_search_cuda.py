"""Exact search on CUDA == the same on the CPU: ties, streaming, half precision, tf32 kept out."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from quarry.retrieval.embeddings import GatheredEmbeddings
from quarry.retrieval.index.exact import ExactIndex
from quarry.retrieval.index.top_k import TopK

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

CHUNKS = pytest.mark.parametrize(("chunk", "query_chunk"), [(1024, 64), (700, 7), (8192, 1000)])


def search(
    queries: torch.Tensor, documents: torch.Tensor, *, chunk: int = 1024, query_chunk: int = 64
) -> TopK:
    index = ExactIndex(num_documents_per_chunk=chunk, num_queries_per_chunk=query_chunk)
    places = torch.randperm(len(documents), generator=torch.Generator().manual_seed(0))
    return index.top_k(queries=queries, documents=documents, places=places, top_k=30, device="cuda")


@CHUNKS
@pytest.mark.parametrize("num_levels", [1, 3, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("is_resident", [True, False])
def test_equals_a_stable_sort(
    chunk: int, query_chunk: int, num_levels: int, dtype: torch.dtype, is_resident: bool
) -> None:
    """Whole numbers, exact in every dtype; few levels tie a lot."""
    generator = torch.Generator().manual_seed(num_levels)
    queries = torch.randint(-num_levels, num_levels + 1, (100, 16), generator=generator)
    documents = torch.randint(num_levels, (5000, 16), generator=generator)
    places = torch.randperm(5000, generator=torch.Generator().manual_seed(0))
    scores = (queries.double() @ documents.double().T)[:, places.argsort()]
    expected = scores.sort(dim=1, descending=True, stable=True)
    device = "cuda" if is_resident else "cpu"
    best = search(
        queries.to(device, dtype), documents.to(device, dtype), chunk=chunk, query_chunk=query_chunk
    )
    assert torch.equal(best.scores.double(), expected.values[:, :30])
    assert torch.equal(best.places, expected.indices[:, :30])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_scores_are_those_of_fp64(dtype: torch.dtype) -> None:
    """1e-6: fp32 sums of 512 terms of unit vectors; TF32 would be off by 1e-4."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        queries = normalize(torch.randn(50, 512), dim=1).to(dtype)
        documents = normalize(torch.randn(3000, 512), dim=1).to(dtype)
        best = search(queries, documents)
    finally:
        torch.set_float32_matmul_precision(before)
    expected = (queries.double() @ documents.double().T).topk(30, dim=1).values
    torch.testing.assert_close(best.scores.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_documents_tie_wherever_they_stand(dtype: torch.dtype) -> None:
    queries = normalize(torch.randn(50, 512), dim=1).to(dtype)
    once = normalize(torch.randn(601, 512), dim=1).to(dtype)
    best = search(queries, once.repeat(5, 1))
    for scores in best.scores.tolist():
        assert len(set(scores)) == 6  # 30 results: six documents, five copies of each


@CHUNKS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_gathered_from_several_arrays(
    chunk: int, query_chunk: int, dtype: torch.dtype
) -> None:
    """As the embedding store hands them out, repeated rows included."""
    generator = torch.Generator().manual_seed(0)
    once = normalize(torch.randn(1500, 32, generator=generator), dim=1).to(dtype)
    queries = normalize(torch.randn(50, 32, generator=generator), dim=1).to(dtype)
    rows = torch.randint(1500, (5000,), generator=generator)
    lazy = GatheredEmbeddings(
        parts=[(0, once[:700].numpy()), (700, once[700:].numpy())],
        rows=rows.numpy(),
        dim=32,
        dtype=dtype,
    )
    index = ExactIndex(num_documents_per_chunk=chunk, num_queries_per_chunk=query_chunk)
    found, expected = (
        index.top_k(
            queries=queries, documents=documents, places=torch.arange(5000), top_k=30, device="cuda"
        )
        for documents in (lazy, once[rows])
    )
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.places, expected.places)
