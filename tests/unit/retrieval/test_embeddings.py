"""Rows gathered from several arrays are those rows, and search over them as over a tensor."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from quarry.retrieval.embeddings import Embeddings, GatheredEmbeddings
from quarry.retrieval.index.exact import ExactIndex
from quarry.types import Run


def cut(whole: NDArray[np.floating], sizes: list[int]) -> list[tuple[int, NDArray[np.floating]]]:
    starts = np.cumsum([0, *sizes]).tolist()
    return [(start, whole[start:stop]) for start, stop in pairwise(starts)]


@pytest.mark.parametrize("sizes", [[50], [20, 30], [1, 1, 48], [7, 0, 43]])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_any_rows_in_any_order(sizes: list[int], dtype: type) -> None:
    generator = np.random.default_rng(0)
    whole = generator.normal(size=(50, 8)).astype(dtype)
    rows = generator.integers(0, 50, size=200)
    gathered = GatheredEmbeddings(
        parts=cut(whole, sizes), rows=rows, dim=8, dtype=torch.from_numpy(whole).dtype
    )
    assert (len(gathered), gathered.shape) == (200, (200, 8))
    for start, stop in [(0, 200), (0, 1), (13, 57), (199, 300), (5, 5)]:
        expected = torch.from_numpy(whole[rows[start:stop]])
        assert torch.equal(gathered[start:stop], expected)
        assert gathered[start:stop].dtype == expected.dtype


def test_a_slice_is_a_copy() -> None:
    whole = np.zeros((2, 3), dtype=np.float32)
    gathered = GatheredEmbeddings(
        parts=[(0, whole)], rows=np.array([0, 1]), dim=3, dtype=torch.float32
    )
    gathered[:].fill_(1)
    assert not whole.any()


@pytest.mark.parametrize("row", [2, 3, 7])
def test_a_row_that_no_part_has_is_not_replaced_by_another(row: int) -> None:
    parts = [(0, np.zeros((2, 3), dtype=np.float32)), (4, np.zeros((2, 3), dtype=np.float32))]
    with pytest.raises(AssertionError):
        GatheredEmbeddings(parts=parts, rows=np.array([0, row, 5]), dim=3, dtype=torch.float32)


def test_nothing_has_its_dimension() -> None:
    nothing = GatheredEmbeddings(
        parts=[], rows=np.array([], dtype=np.int64), dim=4, dtype=torch.float16
    )
    assert nothing[:].shape == nothing.shape == (0, 4)


def run_of(queries: Embeddings, documents: Embeddings, *, num_queries_per_chunk: int) -> Run:
    index = ExactIndex(num_documents_per_chunk=64, num_queries_per_chunk=num_queries_per_chunk)
    return index.search(
        query_ids=[f"q{i}" for i in range(len(queries))],
        queries=queries,
        document_ids=[f"d{i}" for i in range(len(documents))],
        documents=documents,
        top_k=150,
    )


@pytest.mark.parametrize("num_queries_per_chunk", [3, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_search_equals_search_over_tensors_ties_included(
    tmp_path: Path, dtype: torch.dtype, num_queries_per_chunk: int
) -> None:
    """Each text stands there four times, in other chunks: 4 documents tie, to the bit."""
    generator = torch.Generator().manual_seed(0)
    once = normalize(torch.randn(50, 24, generator=generator), dim=1).to(dtype)
    queries = normalize(torch.randn(7, 24, generator=generator), dim=1).to(dtype)
    rows = torch.cat([torch.randperm(50, generator=generator) for _ in range(4)]).numpy()
    parts = []
    for start, part in cut(once.numpy(), [20, 30]):
        part.tofile(tmp_path / f"{start}.bin")
        mapped = np.memmap(tmp_path / f"{start}.bin", part.dtype, mode="r", shape=part.shape)
        parts.append((start, np.asarray(mapped)))
    lazy = GatheredEmbeddings(parts=parts, rows=rows, dim=24, dtype=dtype)
    lazy_queries = GatheredEmbeddings(
        parts=[(0, queries.numpy())], rows=np.arange(7), dim=24, dtype=dtype
    )
    in_memory: Tensor = once[torch.from_numpy(rows)]
    found = run_of(lazy_queries, lazy, num_queries_per_chunk=num_queries_per_chunk)
    expected = run_of(queries, in_memory, num_queries_per_chunk=num_queries_per_chunk)
    assert {q: list(s.items()) for q, s in found.items()} == {
        q: list(s.items()) for q, s in expected.items()
    }
    for scores in found.values():
        assert len(set(scores.values())) <= 50
