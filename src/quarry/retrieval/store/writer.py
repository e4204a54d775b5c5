"""Write a segment batch by batch, so that the process can be killed at any moment."""

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
    """Writer of a segment's unfinished batches. Requires the segment's lock.

    A batch's vectors are written first, then the record that it is finished; until then it is open,
    and would be encoded again. Batches may come in any order and from several ranks, each with its
    own writer.

    Args:
        finished: the batches whose vectors are written and intact.
        what: name of the texts, for messages.
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
        """Check the disk space; one rank calls this before anything is written.

        Raises:
            UserError: the disk has no space for the open batches.
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
        """Texts without a vector so far."""
        return int((~self._is_finished).sum())

    def is_done(self, texts: range) -> bool:
        """Return whether these texts, counted in the order of the plan, are all finished."""
        return bool(self._is_finished[texts.start : texts.stop].all())

    def write(self, start: int, rows: NDArray[np.int64], embeddings: Tensor) -> None:
        """Write a batch and record it as finished.

        Args:
            start: number of texts before it in the plan.
            rows: [num_texts] the batch's texts, as rows of the segment.
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
        """Wait until everything is on disk: from then on even a power cut loses nothing."""
        with explained(self._segment.folder, what=self._what, remedies=self._remedies):
            self._segment.vectors.sync()
            self._journal.sync()
