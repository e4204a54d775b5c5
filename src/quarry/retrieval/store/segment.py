"""A segment of the embedding store: the texts that one call had to encode, and their vectors.

    manifest.json            format, sizes, how it was planned and by what it was made
    texts.bin                16 bytes a text, its hash, in the order in which the call had them
    vectors-00000.bin, ...   their vectors in the order of the plan: a batch is one piece
    finished-*.bin           the batches whose vectors are there, each with a checksum
    lock                     held by the process that writes

The first two are there from the beginning; there is no segment without its manifest.
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
from quarry.retrieval.store.journal import FinishedBatch, read_journals
from quarry.retrieval.store.vector_files import MAX_FILE_BYTES, VectorFiles
from quarry.retrieval.unique_texts import HASH, NUM_HASH_BYTES
from quarry.runtime.files import replacing

FORMAT = 1
"""To be raised when the files of a segment change: other formats are refused, never guessed."""

MANIFEST = "manifest.json"
TEXTS = "texts.bin"
LOCK = "lock"


class DamagedSegmentError(Exception):
    """What is wrong with a segment as a whole; its texts have to be encoded anew."""


class Segment:
    """Read access to a segment, finished or not.

    Attributes:
        hashes: [num_texts] of the texts that it is for, mapped.
        vectors: where they lie.
    """

    def __init__(self, folder: Path, *, hashes: NDArray[np.bytes_], vectors: VectorFiles) -> None:
        self.folder = folder
        self.hashes = hashes
        self.vectors = vectors

    def __len__(self) -> int:
        """Number of texts, finished or not."""
        return len(self.hashes)

    def finished(self) -> list[FinishedBatch]:
        """The batches that are said to be finished; see `is_sound`."""
        num_texts = len(self)
        return [
            batch
            for batch in read_journals(self.folder)
            if batch.stop <= num_texts and len(batch.rows) and batch.rows.max() < num_texts
        ]

    def is_sound(self, batch: FinishedBatch) -> bool:
        """Whether the vectors on disk are those that were written; reads them all."""
        return self.vectors.checksum(batch.start, len(batch.rows)) == batch.checksum


def open_segment(folder: Path) -> Segment | None:
    """The segment in a folder; None where there is none.

    Raises:
        DamagedSegmentError: its manifest or its texts cannot be trusted.
        UserError: it was written by another version.
    """
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedSegmentError(f"{TEXTS} or {MANIFEST} is cut off ({error})") from error
    return Segment(folder, hashes=np.asarray(hashes), vectors=vectors)


def create_segment(
    folder: Path,
    *,
    hashes: NDArray[np.bytes_],
    dim: int,
    dtype: str,
    more: Mapping[str, Any],
) -> None:
    """Begins a segment for these texts, in place of one that is damaged.

    Args:
        more: what else the manifest is to say; for people.
    """
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()
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
    """A power cut must not take from hours of vectors what tells whose they are."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
