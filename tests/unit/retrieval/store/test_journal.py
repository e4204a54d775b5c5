"""A journal is read up to its last whole record, wherever it was cut or spoilt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quarry.retrieval.store.journal import (
    PATTERN,
    FinishedBatch,
    Journal,
    read_journals,
    replace_journals,
)


def batch(start: int, *rows: int) -> FinishedBatch:
    return FinishedBatch(start=start, rows=np.array(rows, dtype=np.uint32), checksum=start + 7)


def plain(batches: list[FinishedBatch]) -> list[tuple[int, list[int], int]]:
    return [(entry.start, entry.rows.tolist(), entry.checksum) for entry in batches]


BATCHES = [batch(0, 3, 1, 2), batch(5, 0), batch(3, 9, 8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    journal = Journal(tmp_path)
    assert list(tmp_path.iterdir()) == []  # begun with the first batch
    for entry in BATCHES:
        journal.add(entry)
    return tmp_path


def test_records_come_back_in_order(folder: Path) -> None:
    assert plain(read_journals(folder)) == plain(BATCHES)
    assert [entry.stop for entry in BATCHES] == [3, 6, 5]


def test_cut_anywhere_whole_records_are_left(folder: Path) -> None:
    (path,) = folder.glob(PATTERN)
    data = path.read_bytes()
    counts = []
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        found = read_journals(folder)
        assert plain(found) == plain(BATCHES[: len(found)])
        counts.append(len(found))
    assert counts == sorted(counts)
    assert [counts.count(number) for number in range(4)] == [32, 24, 28, 1]  # bytes a record


def test_no_changed_byte_is_believed(folder: Path) -> None:
    (path,) = folder.glob(PATTERN)
    data = path.read_bytes()
    for position in range(len(data)):
        spoilt = bytearray(data)
        spoilt[position] ^= 0x10
        path.write_bytes(spoilt)
        found = read_journals(folder)
        assert len(found) < 3
        assert plain(found) == plain(BATCHES[: len(found)])


def test_zeros_after_a_power_cut_are_no_records(folder: Path) -> None:
    (path,) = folder.glob(PATTERN)
    path.write_bytes(path.read_bytes() + bytes(200))
    assert plain(read_journals(folder)) == plain(BATCHES)


def test_several_journals_are_one_list_and_can_be_replaced(folder: Path) -> None:
    Journal(folder).add(batch(6, 4))
    assert len(list(folder.glob(PATTERN))) == 2
    assert len(read_journals(folder)) == 4
    replace_journals(folder, BATCHES[1:])
    assert len(list(folder.glob(PATTERN))) == 1
    assert plain(read_journals(folder)) == plain(BATCHES[1:])
