"""Small index folders, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quarry.search.index_building import IndexSettings, Origin, build_index
from quarry.search.index_kinds import Exact, IndexKind
from quarry.search.search_index import SearchIndex
from quarry.types import Content, Document

CONTRACT = {
    "query": {"dtype": "torch.float32", "weights": ["w"], "max_length": 32},
    "document": {"dtype": "torch.float32", "weights": ["w"], "max_length": 64},
}


def unit_vectors(number: int, dim: int = 32, *, seed: int = 0) -> NDArray[np.float32]:
    """Random directions."""
    rows = np.random.default_rng(seed).standard_normal((number, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def some_documents(number: int, *, first: int = 0) -> list[Document]:
    """Documents d0, d1, ..., each with a word of its own."""
    return [
        Document(document_id=f"d{i}", title=f"title {i}", text=f"word{i} reads a file")
        for i in range(first, first + number)
    ]


def made_index(
    folder: Path,
    vectors: NDArray[np.float32] | None = None,
    *,
    documents: Sequence[Document] | None = None,
    kind: IndexKind | None = None,
    dtype: str = "float16",
    bm25: Content | None = "text",
    num_recall_queries: int = 0,
    model: dict[str, Any] | None = None,
    contract: Any = CONTRACT,
) -> SearchIndex:
    """An index of these vectors, of 50 by default."""
    rows = unit_vectors(50) if vectors is None else vectors
    return build_index(
        folder,
        documents=some_documents(len(rows)) if documents is None else documents,
        vectors=torch.from_numpy(rows),
        settings=IndexSettings(
            kind=kind or Exact(), dtype=dtype, bm25=bm25, num_recall_queries=num_recall_queries
        ),
        origin=Origin(model=model or {}, contract=contract, source={"corpus": "made"}),
    )
