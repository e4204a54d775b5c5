"""Record which batches of a segment are finished, with checksums of their vectors.

A journal is an append-only file with one record per batch, added once its vectors are written. A
killed process leaves at most half a record at the end, which the record's own checksum reveals.
Every process has its own journal, so that several can work on one segment on any file system.
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quarry.runtime.files import replacing

PATTERN = "finished-*.bin"
ROW = np.dtype("<u4")

_HEAD = struct.Struct("<QII")
"""start, number of texts, checksum of the vectors; then the rows, then a checksum of all that."""
_TAIL = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedBatch:
    """A batch whose vectors are on disk.

    Attributes:
        start: index of its first vector in the segment, in rows.
        rows: [num_texts] the text of the segment that each vector belongs to.
        checksum: CRC-32 of the vectors' bytes.
    """

    start: int
    rows: NDArray[np.uint32]
    checksum: int

    @property
    def stop(self) -> int:
        return self.start + len(self.rows)


class Journal:
    """The journal of this process, created with its first batch."""

    def __init__(self, folder: Path) -> None:
        self.path = _new_path(folder)

    def add(self, batch: FinishedBatch) -> None:
        """Record that a batch is finished; its vectors must have been written before."""
        record = _record(batch)
        with self.path.open("ab", buffering=0) as file:
            while record:
                record = record[file.write(record) :]

    def sync(self) -> None:
        """Wait until everything is on disk."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())


def read_journals(folder: Path) -> list[FinishedBatch]:
    """Return the finished batches of a segment, in the order of its journals."""
    return [
        batch for path in sorted(folder.glob(PATTERN)) for batch in _read_records(path.read_bytes())
    ]


def max_journal_bytes(num_texts: int) -> int:
    """Return the size that a journal of a segment can have: a record for each text, at most.

    A batch that was found damaged may be in it again.
    """
    return 2 * num_texts * (_HEAD.size + ROW.itemsize + _TAIL.size)


def replace_journals(folder: Path, batches: Sequence[FinishedBatch]) -> None:
    """Replace all journals by these finished batches; only for the holder of the segment's lock."""
    old = list(folder.glob(PATTERN))
    with replacing(_new_path(folder)) as partial:
        partial.write_bytes(b"".join(map(_record, batches)))
    for path in old:
        path.unlink()


def _new_path(folder: Path) -> Path:
    return folder / PATTERN.replace("*", f"{os.getpid()}-{secrets.token_hex(4)}")


def _record(batch: FinishedBatch) -> bytes:
    record = _HEAD.pack(batch.start, len(batch.rows), batch.checksum)
    record += batch.rows.astype(ROW).tobytes()
    return record + _TAIL.pack(zlib.crc32(record))


def _read_records(data: bytes) -> Iterator[FinishedBatch]:
    """Yield the records up to the end, or to the first that is incomplete."""
    begin = 0
    while begin + _HEAD.size + _TAIL.size <= len(data):
        start, num_texts, checksum = _HEAD.unpack_from(data, begin)
        end = begin + _HEAD.size + num_texts * ROW.itemsize
        if end + _TAIL.size > len(data):
            return
        if _TAIL.unpack_from(data, end) != (zlib.crc32(data[begin:end]),):
            return
        rows = np.frombuffer(data, ROW, count=num_texts, offset=begin + _HEAD.size)
        yield FinishedBatch(start=start, rows=rows, checksum=checksum)
        begin = end + _TAIL.size
