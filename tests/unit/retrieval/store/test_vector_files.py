"""Vectors come back as they were written, whatever files they are cut into."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

from quarry.retrieval.store import vector_files
from quarry.retrieval.store.vector_files import VectorFiles

VECTORS = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


def files(folder: Path, *, num_rows_per_file: int = 4) -> VectorFiles:
    return VectorFiles(
        folder, num_rows=10, dim=3, dtype="float32", num_rows_per_file=num_rows_per_file
    )


@pytest.mark.parametrize("num_rows_per_file", [1, 3, 4, 10, 100])
def test_in_pieces_in_any_order(tmp_path: Path, num_rows_per_file: int) -> None:
    written = files(tmp_path, num_rows_per_file=num_rows_per_file)
    for start, stop in [(6, 10), (0, 2), (2, 6)]:
        written.write(start, VECTORS[start:stop])
    parts = files(tmp_path, num_rows_per_file=num_rows_per_file).parts()
    assert [start for start, _ in parts] == list(range(0, 10, num_rows_per_file))
    assert np.array_equal(np.concatenate([part for _, part in parts]), VECTORS)
    assert written.checksum(1, 8) == zlib.crc32(VECTORS[1:9].tobytes())


def test_what_is_not_there_has_no_checksum(tmp_path: Path) -> None:
    written = files(tmp_path)
    assert written.checksum(0, 1) is None
    assert written.parts() == []
    written.write(4, VECTORS[4:6])
    assert written.checksum(4, 2) == zlib.crc32(VECTORS[4:6].tobytes())
    assert written.checksum(5, 2) is None  # the file ends before
    assert written.checksum(3, 2) is None  # half of it in a file that is not there
    assert [(start, len(part)) for start, part in written.parts()] == [(4, 2)]


def test_a_hole_is_no_vector(tmp_path: Path) -> None:
    written = files(tmp_path)
    written.write(2, VECTORS[2:4])
    assert written.checksum(0, 2) == zlib.crc32(bytes(24)) != zlib.crc32(VECTORS[:2].tobytes())


def test_a_call_that_writes_less_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = vector_files.os.pwrite

    def some(file: int, data: memoryview, offset: int) -> int:
        return pwrite(file, data[:5], offset)

    monkeypatch.setattr(vector_files.os, "pwrite", some)
    written = files(tmp_path)
    written.write(0, VECTORS)
    assert written.checksum(0, 10) == zlib.crc32(VECTORS.tobytes())


def test_large_reads_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_files, "NUM_BYTES_PER_READ", 7)
    written = files(tmp_path)
    written.write(0, VECTORS)
    written.sync()
    assert written.checksum(0, 10) == zlib.crc32(VECTORS.tobytes())
