"""Store the vectors of a segment: rows of a matrix in files of bounded size, mapped for reading."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_FILE_BYTES = 2**30
NUM_BYTES_PER_READ = 2**24


class VectorFiles:
    """The files `vectors-00000.bin`, ...: raw rows [num_rows, dim], little-endian.

    Written by system calls, not through a map: on a full disk a call raises an error, whereas a map
    ends the process.

    Args:
        folder: folder of the files.
        num_rows: rows in all files; rows that were not written are holes.
        num_rows_per_file: rows in each file; the last one has the remainder.
    """

    def __init__(
        self, folder: Path, *, num_rows: int, dim: int, dtype: str, num_rows_per_file: int
    ) -> None:
        self.folder = folder
        self.num_rows = num_rows
        self.dim = dim
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.num_rows_per_file = num_rows_per_file

    @property
    def num_bytes_per_row(self) -> int:
        return self.dim * self.dtype.itemsize

    def write(self, start: int, vectors: NDArray[np.floating]) -> None:
        """Write rows from `start` on. Once it returns, a killed process loses none of them."""
        assert vectors.dtype == self.dtype
        assert vectors.shape[1:] == (self.dim,)
        assert start + len(vectors) <= self.num_rows
        for path, offset, rows in self._pieces(start, len(vectors)):
            # opened for every batch: a network file system sends the data on close
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                write_all(file, np.ascontiguousarray(vectors[rows]).data.cast("B"), offset)
            finally:
                os.close(file)

    def checksum(self, start: int, num_rows: int) -> int | None:
        """Return the CRC-32 of these rows' bytes, read from the files; None if rows are missing."""
        checksum = 0
        for path, offset, rows in self._pieces(start, num_rows):
            left = (rows.stop - rows.start) * self.num_bytes_per_row
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                return None
            with file:
                file.seek(offset)
                while left:
                    data = file.read(min(left, NUM_BYTES_PER_READ))
                    if not data:
                        return None
                    checksum, left = zlib.crc32(data, checksum), left - len(data)
        return checksum

    def parts(self) -> list[tuple[int, NDArray[np.floating]]]:
        """Return each existing file, memory-mapped, with the number of its first row."""
        found = []
        for start in range(0, self.num_rows, self.num_rows_per_file):
            path = self._path(start)
            num_rows = path.stat().st_size // self.num_bytes_per_row if path.exists() else 0
            if num_rows:
                mapped = np.memmap(path, self.dtype, mode="r", shape=(num_rows, self.dim))
                # a plain array: numpy's own class for maps is slower to index
                found.append((start, np.asarray(mapped)))
        return found

    def sync(self) -> None:
        """Wait until everything is on disk."""
        for start in range(0, self.num_rows, self.num_rows_per_file):
            path = self._path(start)
            if path.exists():
                with path.open("rb") as file:
                    os.fsync(file.fileno())

    def _pieces(self, start: int, num_rows: int) -> Iterator[tuple[Path, int, slice]]:
        """Yield path, byte offset and rows (counted from `start`) of the piece in each file."""
        row, stop = start, start + num_rows
        while row < stop:
            first = row - row % self.num_rows_per_file
            end = min(stop, first + self.num_rows_per_file)
            offset = (row - first) * self.num_bytes_per_row
            yield self._path(row), offset, slice(row - start, end - start)
            row = end

    def _path(self, row: int) -> Path:
        return self.folder / f"vectors-{row // self.num_rows_per_file:05d}.bin"


def write_all(file: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`.

    A call may write less than it was given, for example just before the disk is full.
    """
    while data:
        num_written = os.pwrite(file, data, offset)
        data, offset = data[num_written:], offset + num_written
