"""faiss' kinds for any number of documents, with parameters that fit it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.indexes import made_index, unit_vectors
from quarry.errors import UserError
from quarry.search.index_kinds import Exact, FaissFlat, FaissHNSW, FaissIVFPQ, require_faiss
from quarry.search.search_index import NO_ROW, SearchIndex

KINDS = [FaissFlat(), FaissIVFPQ(), FaissHNSW()]
pytest.importorskip("faiss")


@pytest.mark.parametrize("number", [1, 2, 9, 60])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_small_corpora_are_found_completely(tmp_path: Path, kind: FaissFlat, number: int) -> None:
    vectors, queries = unit_vectors(number), unit_vectors(3, seed=1)
    index = made_index(tmp_path / "own", vectors, kind=kind, bm25=None)
    exact = made_index(tmp_path / "exact", vectors, bm25=None)
    rows, scores = index.search(queries, 5)
    wanted, best = exact.search(queries, 5)
    assert rows.tolist() == wanted.tolist()
    assert scores.tolist() == best.tolist()


def test_clustered_vectors_are_found_by_every_kind(tmp_path: Path) -> None:
    centres = unit_vectors(30, 64)
    noise = unit_vectors(1500, 64, seed=3)
    vectors = np.repeat(centres, 50, axis=0) + 0.5 * noise
    for kind in KINDS:
        index = made_index(
            tmp_path / kind.name, vectors, kind=kind, bm25=None, num_recall_queries=50
        )
        recall = SearchIndex.open(index.folder).manifest.recall
        assert recall["recall@10"] >= 0.9, kind.name
        assert recall["num_queries"] == 50
        assert recall["median_ms"] > 0


def test_parameters_follow_the_number_of_documents() -> None:
    auto = FaissIVFPQ()
    assert auto.settled(num_documents=1, dim=30) == {
        "nlist": 1, "m": 6, "num_bits": 1, "nprobe": 1, "num_rescored": None,
    }  # fmt: skip
    large = auto.settled(num_documents=1_000_000, dim=1024)
    assert (large["nlist"], large["m"], large["nprobe"]) == (4000, 256, 128)
    given = FaissIVFPQ(nlist=10, m=8, nprobe=99, num_rescored=7)
    assert given.settled(num_documents=1000, dim=64)["nprobe"] == 10


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (FaissIVFPQ(m=7), r"task\.index\.m=7: does not divide"),
        (FaissIVFPQ(nlist=101), r"task\.index\.nlist=101: there are 100 documents"),
        (FaissHNSW(m=1), r"task\.index\.m=1"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(kind: FaissHNSW, message: str) -> None:
    with pytest.raises(UserError, match=message):
        kind.settled(num_documents=100, dim=64)


def test_lists_that_hold_too_few_leave_rows_empty(tmp_path: Path) -> None:
    vectors = np.repeat(unit_vectors(2), 20, axis=0) + 0.01 * unit_vectors(40, seed=5)
    kind = FaissIVFPQ(nlist=2, nprobe=1)
    index = made_index(tmp_path / "index", vectors, kind=kind, bm25=None)
    rows, scores = index.search(vectors[:1], 40)
    assert rows.shape == (1, 40)
    num_found = int((rows >= 0).sum())
    assert 0 < num_found < 40
    assert (rows[0, num_found:] == NO_ROW).all()
    assert np.isneginf(scores[0, num_found:]).all()


def test_without_faiss_the_pip_command_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = made_index(tmp_path / "index", kind=FaissFlat())
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"pip install 'quarry-retrieval\[faiss\]'"):
        require_faiss("faiss_flat")
    with pytest.raises(UserError, match="faiss_flat needs faiss-cpu"):
        SearchIndex.open(index.folder)


def test_a_damaged_file_of_faiss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = made_index(tmp_path / "index", kind=FaissFlat())
    (index.folder / "faiss.index").write_bytes(b"not faiss at all")
    monkeypatch.setattr("quarry.search.search_index.check_files", lambda *_, **__: None)
    with pytest.raises(UserError, match="damaged"):
        SearchIndex.open(index.folder)


def test_exact_has_no_parameters() -> None:
    assert Exact().settled(num_documents=5, dim=3) == {}
    assert Exact().write(Path("unused"), unit_vectors(2), {}) == ()
