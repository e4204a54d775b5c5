"""A folder of vectors gives back what was written, and refuses what is not as written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.vectors import CONTRACT, vectors, write_shards, write_vector_folder
from quarry.encoding import block_files
from quarry.encoding.manifest import MANIFEST, digest_of, read_manifest
from quarry.encoding.vector_folder import VectorFolder
from quarry.errors import MissingPathError, UserError

EMBEDDINGS = vectors(250)


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_files, "ROWS_PER_GROUP", 40)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("file_format", ["parquet", "npy"])
def test_ids_and_vectors_come_back(tmp_path: Path, file_format: str, dtype: str) -> None:
    path = write_vector_folder(tmp_path / "v", EMBEDDINGS, file_format=file_format, dtype=dtype)  # type: ignore[arg-type]
    folder = VectorFolder.open(path)
    expected = EMBEDDINGS.to(getattr(torch, dtype))
    assert len(folder) == len(folder.ids) == len(folder.embeddings) == 250
    assert folder.embeddings.shape == (250, 8)
    assert folder.embeddings.dtype == expected.dtype
    for rows in (slice(0, 250), slice(95, 205), slice(99, 100), slice(30, 50), slice(7, 7)):
        assert torch.equal(folder.embeddings[rows], expected[rows])
        assert folder.ids[rows] == [f"d{i}" for i in range(250)][rows]
    assert list(folder.ids) == [f"d{i}" for i in range(250)]
    assert (folder.ids[-1], folder.ids[100]) == ("d249", "d100")
    assert folder.ids[::100] == ["d0", "d100", "d200"]
    with pytest.raises(IndexError):
        folder.ids[250]
    folder.verify()


def test_vectors_of_npy_are_mapped(tmp_path: Path) -> None:
    folder = VectorFolder.open(write_vector_folder(tmp_path / "v", EMBEDDINGS, file_format="npy"))
    parts = folder.embeddings.mapped()
    assert not any(part.flags.writeable for part in parts)
    assert np.array_equal(np.concatenate(parts), EMBEDDINGS.numpy())


def test_the_manifest_has_contract_and_counts(tmp_path: Path) -> None:
    path = write_vector_folder(tmp_path / "v", EMBEDDINGS, caveats=("1 of 250 are empty",))
    content = json.loads((path / MANIFEST).read_text())
    assert (content["kind"], content["format"], content["num_texts"]) == ("quarry-vectors", 1, 250)
    assert content["contract_digests"]["query"] == digest_of(CONTRACT["query"])
    manifest = read_manifest(path)
    assert manifest.contract_digest == digest_of(CONTRACT["document"])
    assert manifest.caveats == ("1 of 250 are empty",)
    assert [block.num_texts for block in manifest.blocks] == [100, 100, 50]


def in_manifest(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = json.loads((path / MANIFEST).read_text())
        (path / MANIFEST).write_text(json.dumps(content | changes))

    return change


def cut(path: Path) -> None:
    file = path / "vectors-00001.npy"
    file.write_bytes(file.read_bytes()[:-1])


def half_manifest(path: Path) -> None:
    (path / MANIFEST).write_bytes((path / MANIFEST).read_bytes()[:100])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "vectors-00001.npy: is damaged or cut off"),
        (lambda path: (path / "ids-00002.arrow").unlink(), "ids-00002.arrow: is missing"),
        (lambda path: (path / MANIFEST).unlink(), "no folder of vectors"),
        (half_manifest, "manifest.json: is damaged"),
        (in_manifest(kind="other"), "is of another program"),
        (in_manifest(format=2), "has format 2"),
        (in_manifest(num_texts=251), "contradict"),
        (in_manifest(dim=-1), "is damaged"),
        (in_manifest(role="passage"), "is damaged"),
        (in_manifest(contract={"query": {}, "document": {}}), "contradict"),
        (in_manifest(blocks=[{"num_texts": 250, "files": [{"name": "../x.npy"}]}]), "'../x.npy'"),
    ],
)
def test_what_is_not_as_written_is_refused(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    path = write_vector_folder(tmp_path / "v", EMBEDDINGS, file_format="npy")
    change(path)
    with pytest.raises(UserError, match=message):
        VectorFolder.open(path)


@pytest.mark.parametrize("name", ["vectors-00001.npy", "ids-00000.arrow"])
def test_a_flipped_bit_is_found_by_verify(tmp_path: Path, name: str) -> None:
    path = write_vector_folder(tmp_path / "v", EMBEDDINGS, file_format="npy")
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: is damaged.*checksum"):
        VectorFolder.open(path).verify()


def test_files_that_contradict_the_manifest_are_refused_when_read(tmp_path: Path) -> None:
    path = write_vector_folder(tmp_path / "v", EMBEDDINGS, file_format="npy")
    in_manifest(dim=4)(path)
    with pytest.raises(UserError, match="vectors-00000.npy: is damaged"):
        VectorFolder.open(path).embeddings[0:1]


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    wrong = EMBEDDINGS.clone()
    wrong[77, 3] = torch.nan
    with pytest.raises(UserError, match="text 'd77' holds NaN"):
        write_vector_folder(tmp_path / "v", wrong)
    with pytest.raises(UserError, match="1e\\+06, more than float16 can"):
        write_vector_folder(tmp_path / "w", torch.full((3, 8), 1e6), dtype="float16")


@pytest.mark.parametrize("file_format", ["parquet", "npy"])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_shards_are_opened_as_one(tmp_path: Path, count: int, file_format: str) -> None:
    folder = VectorFolder.open(
        write_shards(tmp_path / "v", EMBEDDINGS, count, file_format=file_format)
    )
    assert torch.equal(folder.embeddings[0:250], EMBEDDINGS)
    assert list(folder.ids) == [f"d{i}" for i in range(250)]
    assert count == 1 or folder.manifest.part is None
    folder.verify()


def test_empty_shards_count_as_finished(tmp_path: Path) -> None:
    folder = VectorFolder.open(write_shards(tmp_path / "v", EMBEDDINGS[:2], 5))
    assert torch.equal(folder.embeddings[0:2], EMBEDDINGS[:2])


def test_missing_and_foreign_shards_are_refused(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "v", EMBEDDINGS, 4)
    last = path / "shard-00003-of-00004"
    in_manifest(dtype="float16")(last)
    with pytest.raises(UserError, match="does not belong.*dtype"):
        VectorFolder.open(path)
    in_manifest(dtype="float32", source={"digest": "t"})(last)
    with pytest.raises(UserError, match="does not belong.*source"):
        VectorFolder.open(path)
    shutil.rmtree(last)
    with pytest.raises(MissingPathError, match="1 of 4 shards are missing or not finished: 3/4"):
        VectorFolder.open(path)
    assert len(VectorFolder.open(path / "shard-00001-of-00004")) == 63


def test_shards_of_files_of_other_times_are_noted(tmp_path: Path) -> None:
    """The digest of large files has their ends alone, so that an edit between is not refused."""
    path = write_shards(tmp_path / "v", EMBEDDINGS, 2)
    last = path / "shard-00001-of-00002"
    for times, number in (("t", 0), ("u", 1)):
        in_manifest(source={"digest": "s", "kind": "table", "modified_digest": "t"})(
            path / "shard-00000-of-00002"
        )
        in_manifest(source={"digest": "s", "kind": "table", "modified_digest": times})(last)
        caveats = VectorFolder.open(path).manifest.caveats
        assert sum("changed between" in caveat for caveat in caveats) == number


def test_verify_finds_an_id_that_two_shards_have(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "v", EMBEDDINGS, 2)
    shutil.rmtree(path / "shard-00001-of-00002")
    shutil.copytree(path / "shard-00000-of-00002", path / "shard-00001-of-00002")
    in_manifest(shard={"number": 1, "count": 2})(path / "shard-00001-of-00002")
    folder = VectorFolder.open(path)
    with pytest.raises(UserError, match=r"the id 'd\d+' stands for two texts"):
        folder.verify()
