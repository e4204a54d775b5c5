"""Fills a segment, batch after batch, so that it can be killed at any moment."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from quarry.retrieval.store.conversion import converted
from quarry.retrieval.store.journal import FinishedBatch, Journal
from quarry.retrieval.store.room import check_room, explained, remedies_of_store
from quarry.retrieval.store.segment import Segment
from quarry.retrieval.unique_texts import NUM_HASH_BYTES


class SegmentWriter:
    """Writes the batches of a segment that are not finished. Needs the segment's lock.

    A batch's vectors are written first, then the record that it is finished; until then it is open,
    and will be encoded again. Batches may come in any order and from several processes, each with
    a writer of its own.

    Args:
        finished: the batches whose vectors are there and sound.
        what: the texts, for messages.
    """

    def __init__(self, segment: Segment, *, finished: Sequence[FinishedBatch], what: str) -> None:
        self._segment = segment
        self._journal = Journal(segment.folder)
        self._is_finished = np.zeros(len(segment), dtype=bool)
        for batch in finished:
            self._is_finished[batch.start : batch.stop] = True
        dtype = segment.vectors.dtype.name
        self._remedies = remedies_of_store(dtype)
        self._what = f"{what} ({len(segment):,} texts x {segment.vectors.dim} {dtype})"

    def check_room(self) -> None:
        """To be called before anything is written, by one process.

        Raises:
            UserError: the disk has no room for what is open.
        """
        num_bytes = self._segment.vectors.num_bytes_per_row + NUM_HASH_BYTES
        check_room(
            self._segment.folder,
            num_bytes=self.num_open * num_bytes,
            what=self._what,
            remedies=self._remedies,
        )

    @property
    def num_open(self) -> int:
        """Texts whose vectors are not there yet."""
        return int((~self._is_finished).sum())

    def is_done(self, texts: range) -> bool:
        """Whether these texts, counted in the order of the plan, are all finished."""
        return bool(self._is_finished[texts.start : texts.stop].all())

    def write(self, start: int, rows: NDArray[np.int64], embeddings: Tensor) -> None:
        """Finishes a batch.

        Args:
            start: texts before it in the plan.
            rows: [num_texts] which texts of the segment it holds.
            embeddings: [num_texts, dim], fp32, on the CPU.

        Raises:
            UserError: the disk is full, or a number is too large for the store's dtype.
        """
        vectors = converted(
            embeddings,
            self._segment.vectors.dtype,
            what=self._what,
            remedy="evaluation.store_dtype=float32",
        )
        batch = FinishedBatch(
            start=start, rows=rows.astype(np.uint32), checksum=zlib.crc32(vectors.data)
        )
        with explained(self._segment.folder, what=self._what, remedies=self._remedies):
            self._segment.vectors.write(start, vectors)
            self._journal.add(batch)
        self._is_finished[batch.start : batch.stop] = True

    def sync(self) -> None:
        """Waits until the disk has it all: from then on a power cut, too, loses nothing."""
        with explained(self._segment.folder, what=self._what, remedies=self._remedies):
            self._segment.vectors.sync()
            self._journal.sync()
