"""Read and create a segment of the embedding store: the texts one call had to encode, and vectors.

    manifest.json            format, sizes, plan of the batches and versions of the software
    texts.bin                16 bytes a text, its hash, in the order of the call
    vectors-00000.bin, ...   their vectors in the order of the plan: a batch is contiguous
    finished-*.bin           the batches whose vectors are written, each with a checksum
    lock                     held by the process that writes

The first two exist from the beginning; there is no segment without its manifest.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quarry.errors import UserError
from quarry.retrieval.store.journal import (
    PATTERN,
    FinishedBatch,
    max_journal_bytes,
    read_journals,
)
from quarry.retrieval.store.vector_files import MAX_FILE_BYTES, VectorFiles
from quarry.retrieval.unique_texts import HASH, NUM_HASH_BYTES
from quarry.runtime.files import remove, replacing

FORMAT = 1
"""Version of a segment's files; raise it when they change. Other formats are refused."""

MANIFEST = "manifest.json"
TEXTS = "texts.bin"
LOCK = "lock"

DTYPE_NAMES = ("float32", "float16")
"""Types of vectors."""

MAX_MANIFEST_BYTES = 2**20


class DamagedSegmentError(Exception):
    """Error for a segment that is damaged as a unit; its texts must be encoded again."""


class Segment:
    """Read access to a segment, finished or not.

    Attributes:
        hashes: [num_texts] hashes of its texts, memory-mapped.
        vectors: the files of their vectors.
    """

    def __init__(self, folder: Path, *, hashes: NDArray[np.bytes_], vectors: VectorFiles) -> None:
        self.folder = folder
        self.hashes = hashes
        self.vectors = vectors

    def __len__(self) -> int:
        """Return the number of texts, finished or not."""
        return len(self.hashes)

    def finished(self) -> list[FinishedBatch]:
        """Return the batches that are recorded as finished; see `is_sound`."""
        num_texts = len(self)
        return [
            batch
            for batch in read_journals(self.folder)
            if batch.stop <= num_texts and len(batch.rows) and batch.rows.max() < num_texts
        ]

    def is_sound(self, batch: FinishedBatch) -> bool:
        """Return whether the vectors on disk have their recorded checksum; reads them all."""
        return self.vectors.checksum(batch.start, len(batch.rows)) == batch.checksum


def open_segment(folder: Path) -> Segment | None:
    """Open the segment in a folder; return None if there is none.

    Raises:
        DamagedSegmentError: its manifest or its texts are damaged.
        UserError: it was written by another version.
    """
    _check_files(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["format"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedSegmentError(f"{MANIFEST} cannot be read ({error})") from error
    if version != FORMAT:
        raise UserError(
            f"{folder} was written by another version: it has format {version!r}, and this one "
            f"reads and writes {FORMAT}. Delete {folder.parent} (all in it can be made again), or "
            "keep embeddings elsewhere: paths.store_dir=DIR."
        )
    if manifest.get("dtype") not in DTYPE_NAMES:
        raise DamagedSegmentError(f"{MANIFEST} says dtype={manifest.get('dtype')}")
    try:
        hashes = np.memmap(folder / TEXTS, HASH, mode="r", shape=(manifest["num_texts"],))
        if zlib.crc32(hashes.data) != manifest["texts_checksum"]:
            raise DamagedSegmentError(f"{TEXTS} is not what was written")
        vectors = VectorFiles(
            folder,
            num_rows=len(hashes),
            dim=manifest["dim"],
            dtype=manifest["dtype"],
            num_rows_per_file=manifest["num_rows_per_file"],
        )
        _check_sizes(folder, vectors)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedSegmentError(f"{TEXTS} or {MANIFEST} is cut off ({error})") from error
    return Segment(folder, hashes=np.asarray(hashes), vectors=vectors)


def _check_files(folder: Path) -> None:
    """Refuse what is no regular file, such as a pipe that nobody writes, and a huge manifest."""
    for path in sorted(folder.glob("*")):
        if path.exists() and not path.is_file():
            raise DamagedSegmentError(f"{path.name} is no file")
    manifest = folder / MANIFEST
    if manifest.is_file() and manifest.stat().st_size > MAX_MANIFEST_BYTES:
        raise DamagedSegmentError(f"{MANIFEST} is larger than a manifest can be")


def _check_sizes(folder: Path, vectors: VectorFiles) -> None:
    """Refuse files that are larger than the manifest allows; none is read before."""
    num_rows = min(vectors.num_rows, vectors.num_rows_per_file)
    limits = {
        "vectors-*.bin": num_rows * vectors.num_bytes_per_row,
        PATTERN: max_journal_bytes(vectors.num_rows),
        TEXTS: vectors.num_rows * NUM_HASH_BYTES,
    }
    for pattern, limit in limits.items():
        for path in folder.glob(pattern):
            if path.stat().st_size > limit:
                raise DamagedSegmentError(f"{path.name} is larger than {MANIFEST} allows")


def create_segment(
    folder: Path,
    *,
    hashes: NDArray[np.bytes_],
    dim: int,
    dtype: str,
    more: Mapping[str, Any],
) -> None:
    """Create a segment for these texts, in place of a damaged one.

    Args:
        more: additional entries of the manifest; for people.
    """
    for path in folder.iterdir():
        if path.name != LOCK:
            remove(path)
    texts = hashes.tobytes()
    assert len(texts) == NUM_HASH_BYTES * len(hashes)
    manifest = {
        **more,
        "format": FORMAT,
        "num_texts": len(hashes),
        "texts_checksum": zlib.crc32(texts),
        "dim": dim,
        "dtype": dtype,
        "num_rows_per_file": max(MAX_FILE_BYTES // (dim * np.dtype(dtype).itemsize), 1),
    }
    _write_synced(folder / TEXTS, texts)
    _write_synced(folder / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode())


def _write_synced(path: Path, content: bytes) -> None:
    """Write a file through to disk: after a power cut, vectors are useless without their texts."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
