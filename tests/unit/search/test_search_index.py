"""An opened index: exact results, documents by row and id, and everything that cannot be asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.indexes import made_index, some_documents, unit_vectors
from quarry.errors import MissingPathError, UserError
from quarry.retrieval.index.rescored import exact_scores
from quarry.retrieval.tie_breaking import tie_order, top_k_by_score
from quarry.search.search_index import SearchIndex


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    return made_index(tmp_path_factory.mktemp("index") / "own")


@pytest.fixture
def copy(index: SearchIndex, tmp_path: Path) -> Path:
    """A copy of the folder to spoil."""
    return Path(shutil.copytree(index.folder, tmp_path / "copy"))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_search_ranks_all_documents_exactly(tmp_path: Path, dtype: str) -> None:
    vectors = np.repeat(unit_vectors(20), 2, axis=0)  # each document has a twin
    opened = made_index(tmp_path / "index", vectors, dtype=dtype)
    queries = unit_vectors(3, seed=1)
    rows, scores = opened.search(queries, 7)
    order = tie_order([f"d{i}" for i in range(40)])
    for query, found, values in zip(queries, rows, scores, strict=True):
        exact = exact_scores(query, vectors.astype(dtype), np.arange(40))
        best = top_k_by_score(exact, order, k=7)
        assert found.tolist() == best.tolist()
        assert values.tolist() == exact[best].tolist()


def test_documents_by_row_and_by_id(index: SearchIndex) -> None:
    assert index.document(3) == some_documents(50)[3]
    assert [index.row_of(f"d{row}") for row in (0, 49)] == [0, 49]
    assert index.has("d7")
    assert not index.has("nothing")
    with pytest.raises(UserError, match=r"document_id='nothing'.*no document"):
        index.row_of("nothing")
    for row in (-1, 50):
        with pytest.raises(UserError, match=f"row={row}.*0 to 49"):
            index.document(row)


def test_more_documents_than_there_are(index: SearchIndex) -> None:
    rows, scores = index.search(unit_vectors(1, seed=2), 1000)
    assert rows.shape == scores.shape == (1, 50)
    assert sorted(rows[0].tolist()) == list(range(50))


def test_what_cannot_be_searched_is_refused(index: SearchIndex) -> None:
    queries = unit_vectors(2)
    with pytest.raises(UserError, match=r"top_k=0: must be at least 1"):
        index.search(queries, 0)
    with pytest.raises(UserError, match=r"shape \(2, 16\).*32 wide"):
        index.search(queries[:, :16], 5)
    queries[1, 3] = np.nan
    with pytest.raises(UserError, match="NaN"):
        index.search(queries, 5)


def test_bm25_is_optional(tmp_path: Path, index: SearchIndex) -> None:
    rows, scores = index.search_words("word7", 5)
    assert rows.tolist() == [7]
    assert scores[0] > 0
    bare = made_index(tmp_path / "index", bm25=None)
    assert bare.manifest.bm25 is None
    with pytest.raises(UserError, match=r"hybrid=true.*task\.bm25"):
        bare.search_words("word7", 5)


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="no such folder"):
        SearchIndex.open(tmp_path / "missing")
    with pytest.raises(MissingPathError, match="holds no index"):
        SearchIndex.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2"),
        ({"format": "quarry-vectors"}, "is of 'quarry-vectors'"),
        ({"dim": "wide"}, "damaged"),
        ({"dim": 31}, "damaged"),
        ({"num_documents": 49}, "damaged"),
        ({"files": {"../../etc/passwd": {}}}, "damaged"),
        ({"bm25": "latin"}, "damaged"),
    ],
)
def test_a_manifest_of_others_is_refused(copy: Path, change: dict, message: str) -> None:
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        SearchIndex.open(copy)


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_a_damaged_manifest_is_refused(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(UserError, match="damaged"):
        SearchIndex.open(copy)


def test_every_file_that_is_missing_or_cut_is_named(copy: Path, index: SearchIndex) -> None:
    for name in index.manifest.files:
        path = copy / name
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(UserError, match=rf"{name} is missing"):
            SearchIndex.open(copy)
        path.write_bytes(content[:-1])
        with pytest.raises(UserError, match=rf"{name} has .* bytes instead of"):
            SearchIndex.open(copy)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(UserError, match=rf"{name} has another checksum"):
            SearchIndex.open(copy)
        path.write_bytes(content)
    assert len(SearchIndex.open(copy, verify=True)) == 50


def test_a_byte_in_the_middle_is_found_by_verifying(tmp_path: Path) -> None:
    opened = made_index(tmp_path / "index", unit_vectors(3000, 64), bm25=None)
    path = opened.folder / "vectors.npy"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    SearchIndex.open(opened.folder)
    with pytest.raises(UserError, match=r"vectors\.npy has another checksum"):
        SearchIndex.open(opened.folder, verify=True)
