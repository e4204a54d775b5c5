"""Shards searched as one: the ranking of a single index, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.indexes import CONTRACT, made_index, some_documents, unit_vectors
from quarry.errors import UserError
from quarry.search.index_kinds import FaissIVFPQ
from quarry.search.joined_indexes import JoinedIndexes

SIZES = (13, 1, 26)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.repeat(unit_vectors(10), 4, axis=0)  # every document has three twins


@pytest.fixture(scope="module")
def shards(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> JoinedIndexes:
    folder, start, parts = tmp_path_factory.mktemp("shards"), 0, []
    for size in SIZES:
        documents = some_documents(size, first=start)
        own = vectors[start : start + size]
        parts.append(made_index(folder / str(start), own, documents=documents, bm25="text"))
        start += size
    return JoinedIndexes(parts)


@pytest.mark.parametrize("top_k", [1, 6, 39, 40, 100])
def test_merged_results_equal_those_of_one_index(
    shards: JoinedIndexes, vectors: np.ndarray, tmp_path: Path, top_k: int
) -> None:
    whole = made_index(tmp_path / "whole", vectors)
    queries = np.concatenate([unit_vectors(4, seed=1), vectors[:2]])
    rows, scores = shards.search(queries, top_k)
    wanted, best = whole.search(queries, top_k)
    assert rows.tolist() == wanted.tolist()
    assert scores.tolist() == best.tolist()


def test_rows_count_through_all_indexes(shards: JoinedIndexes) -> None:
    assert len(shards) == 40
    for row in (0, 12, 13, 14, 39):
        assert shards.document(row).document_id == f"d{row}"
        assert shards.row_of(f"d{row}") == row
    with pytest.raises(UserError, match="rows 0 to 39"):
        shards.document(40)
    with pytest.raises(UserError, match="document_id='x'"):
        shards.row_of("x")


def test_one_document_in_two_indexes_is_refused(tmp_path: Path) -> None:
    parts = [made_index(tmp_path / name, unit_vectors(3)) for name in "ab"]
    with pytest.raises(UserError, match=r"'d\d' is in two of the indexes"):
        JoinedIndexes(parts).search(unit_vectors(1), 2)


def test_indexes_of_two_models_are_refused(tmp_path: Path) -> None:
    one = made_index(tmp_path / "one")
    other = made_index(tmp_path / "other", contract=CONTRACT | {"query": {"weights": ["v"]}})
    with pytest.raises(UserError, match="of 2 models or contracts"):
        JoinedIndexes([one, other])


def test_hybrid_needs_one_index_with_bm25(shards: JoinedIndexes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 indexes are searched"):
        shards.check_hybrid(True)
    shards.check_hybrid(False)
    bare = JoinedIndexes([made_index(tmp_path / "bare", bm25=None)])
    with pytest.raises(UserError, match="has no BM25"):
        bare.check_hybrid(True)
    alone = JoinedIndexes(shards.indexes[:1])
    assert alone.search_words("word3", 2)[0].tolist() == [3]


def test_an_index_that_finds_too_few(tmp_path: Path) -> None:
    """Rows that are not found (-1) come last, whatever index they are of."""
    vectors = np.repeat(unit_vectors(2), 20, axis=0) + 0.01 * unit_vectors(40, seed=5)
    kind = FaissIVFPQ(nlist=2, nprobe=1)
    few = made_index(tmp_path / "few", vectors, kind=kind, bm25=None)
    documents = some_documents(5, first=100)
    other = made_index(tmp_path / "other", unit_vectors(5, seed=9), documents=documents, bm25=None)
    rows, _ = JoinedIndexes([few, other]).search(vectors[:1], 45)
    num_found = int((few.search(vectors[:1], 40)[0] >= 0).sum()) + 5
    assert (rows[0] >= 0).tolist() == [True] * num_found + [False] * (45 - num_found)
    assert {40, 41, 42, 43, 44} <= set(rows[0].tolist())
