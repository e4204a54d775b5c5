"""Read gzip files, and refuse those that expand beyond what any text does."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import IO

from quarry.errors import UserError

MAX_RATIO = 200
"""Bytes of text for each compressed byte. Corpora and rankings have up to 20; a bomb has 1,000."""

MIN_BYTES = 2**28
"""Smaller contents are always read."""

_NUM_SIZE_BYTES = 4
_NUM_HEAD_BYTES = 2**16


class BoundedGzip(gzip.GzipFile):
    """Gzip file that counts what it expands to.

    Raises:
        UserError: when it is opened, if the size that it states is too large; while it is read, if
            the content is, whatever it states.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._limit = max(MIN_BYTES, MAX_RATIO * path.stat().st_size)
        self._num_bytes = 0
        stated = _stated_size(path)
        if stated > self._limit and _begins_like_a_bomb(path):
            raise self._too_large(stated)
        super().__init__(path)

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes."""
        data = super().read(size)
        self._num_bytes += len(data)
        if self._num_bytes > self._limit:
            raise self._too_large(self._num_bytes)
        return data

    def _too_large(self, num_bytes: int) -> UserError:
        size = self._path.stat().st_size
        return UserError(
            f"{self._path}: expands to {num_bytes / 2**20:,.0f} MiB or more from {size:,} bytes, "
            f"which no text does (at most {MAX_RATIO} times its size). It is not read. Fix: "
            "another file, or gunzip it first if it is right"
        )


def open_gzip(path: Path) -> IO[bytes]:
    """Open a gzip file for reading, with lines that are split in C."""
    # GzipFile itself splits lines one by one in Python
    return io.BufferedReader(BoundedGzip(path), buffer_size=1 << 20)


def _begins_like_a_bomb(path: Path) -> bool:
    """Return whether the beginning expands too far; the stated size of a cut-off file is noise."""
    with path.open("rb") as file:
        head = file.read(_NUM_HEAD_BYTES)
    limit = MAX_RATIO * len(head)
    try:
        return len(zlib.decompressobj(wbits=31).decompress(head, limit + 1)) > limit
    except zlib.error:
        return False


def _stated_size(path: Path) -> int:
    """Return the size that the end of a gzip file states: of its last member, modulo 4 GiB."""
    with path.open("rb") as file:
        if file.seek(0, io.SEEK_END) < _NUM_SIZE_BYTES:
            return 0
        file.seek(-_NUM_SIZE_BYTES, io.SEEK_END)
        return int.from_bytes(file.read(_NUM_SIZE_BYTES), "little")
