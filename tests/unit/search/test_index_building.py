"""An index appears complete or not at all, in a folder that nothing else uses."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from helpers.disks import small_disk
from helpers.indexes import made_index, some_documents, unit_vectors
from quarry.errors import UserError
from quarry.runtime.disk_errors import explains_disk_errors
from quarry.runtime.ownership import owned
from quarry.search import index_building
from quarry.search.search_index import SearchIndex


def _left(folder: Path) -> list[str]:
    """What lies in a folder and beside the index in it."""
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


def test_the_folder_has_what_the_manifest_lists(tmp_path: Path) -> None:
    index = made_index(tmp_path / "deep" / "index", num_recall_queries=5)
    names = {each.name for each in index.folder.iterdir()} - {".lock"}
    assert names == {"manifest.json", *index.manifest.files}
    assert [each.name for each in index.folder.parent.iterdir()] == ["index"]
    manifest = index.manifest
    assert (manifest.num_documents, manifest.dim, manifest.dtype) == (50, 32, "float16")
    assert manifest.recall["recall@10"] == 1
    assert manifest.largest_norm == pytest.approx(1, abs=1e-3)
    assert len(manifest.digest) == 64


def test_an_index_is_not_overwritten(tmp_path: Path) -> None:
    made_index(tmp_path / "index")
    before = _left(tmp_path)
    with pytest.raises(UserError, match=r"task\.output=.*an index of 50 documents"):
        made_index(tmp_path / "index")
    assert _left(tmp_path) == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(notes\.txt\)"):
        made_index(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        made_index(tmp_path / "file")


def test_the_rest_of_a_killed_build_is_replaced(tmp_path: Path) -> None:
    """Killed while its files are moved: all but the manifest may be there."""
    index = made_index(tmp_path / "index")
    (index.folder / "manifest.json").unlink()
    (index.folder / "vectors.npy").write_bytes(b"half")
    rebuilt = made_index(tmp_path / "index", unit_vectors(7), bm25=None)
    assert len(rebuilt) == 7
    assert not (rebuilt.folder / "bm25_terms.arrow").exists()
    assert len(SearchIndex.open(rebuilt.folder, verify=True)) == 7


@pytest.mark.parametrize("step", ["write_lexical", "measured_recall", "tie_order", "sync"])
def test_a_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr(index_building, step, full)
    with pytest.raises(OSError, match="No space"):
        made_index(tmp_path / "index")
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


def test_a_disk_that_fills_in_the_middle(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", num_bytes=2**20) as disk:
        with (
            pytest.raises(UserError, match="No space|full|free"),
            explains_disk_errors(lambda: [], how_to_continue=str),
        ):
            made_index(disk / "index", unit_vectors(6000, 64))
        assert [each for each in disk.rglob("*") if each.is_file()] == []
        assert len(made_index(disk / "index")) == 50


def test_vectors_that_do_not_fit_the_disk_are_refused_before(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", num_bytes=2**20) as disk,
        pytest.raises(UserError, match=r"the vectors take .* are free there"),
    ):
        made_index(disk / "index", unit_vectors(9000, 64))


def test_two_builders_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = (tmp_path / "index").resolve()
    monkeypatch.setattr("quarry.runtime.ownership.ENDS_S", 0.05)
    with owned(target, is_new=True):
        monkeypatch.setattr("quarry.runtime.ownership._owned", set())  # as another process
        with pytest.raises(UserError, match=r"one process at a time"):
            made_index(target)


def test_a_vector_that_is_not_finite_is_named(tmp_path: Path) -> None:
    vectors = unit_vectors(50)
    vectors[17, 3] = np.nan
    with pytest.raises(UserError, match="'d17' is not finite"):
        made_index(tmp_path / "index", vectors)
    vectors[17, 3] = 1e6
    with pytest.raises(UserError, match=r"task\.dtype=float16.*'d17'.*task\.dtype=float32"):
        made_index(tmp_path / "index", vectors)
    assert made_index(tmp_path / "index", vectors, dtype="float32").manifest.largest_norm > 9e5


def test_documents_and_vectors_have_to_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="50 vectors for 49 documents"):
        made_index(tmp_path / "index", documents=some_documents(49))
    with pytest.raises(UserError, match="the id"):
        made_index(tmp_path / "index", documents=some_documents(25) * 2)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


def test_documents_without_a_term(tmp_path: Path) -> None:
    documents = [one.__class__(document_id=one.document_id, text="") for one in some_documents(50)]
    index = made_index(tmp_path / "index", documents=documents)
    assert index.manifest.bm25 is None
    assert not index.has_lexical
