"""Hold what the embedding store has for one model and contract: segments, searched by text."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quarry.retrieval.embeddings import GatheredEmbeddings
from quarry.retrieval.store.journal import FinishedBatch, replace_journals
from quarry.retrieval.store.room import explained, remedies_of_store
from quarry.retrieval.store.segment import (
    LOCK,
    TEXTS,
    DamagedSegmentError,
    Segment,
    create_segment,
    open_segment,
)
from quarry.retrieval.store.writer import SegmentWriter
from quarry.runtime.cache_use import CacheUse
from quarry.runtime.files import write_json
from quarry.runtime.lock import locked

logger = logging.getLogger(__name__)

CONTRACT = "contract.json"
DTYPES = {"float32": torch.float32, "float16": torch.float16}
"""Dtypes in which vectors can be stored."""


@dataclass(kw_only=True)
class Found:
    """Locations of the stored vectors for some texts.

    Attributes:
        rows: [num_texts] row of each text's vector, counted over `segments`; -1: there is none.
        segments: (number of its first row, name) of each segment.
        num_rows: rows of all segments.
    """

    rows: NDArray[np.int64]
    segments: list[tuple[int, str]] = field(default_factory=list)
    num_rows: int = 0

    @property
    def is_missing(self) -> NDArray[np.bool_]:
        """[num_texts]"""
        missing: NDArray[np.bool_] = self.rows < 0
        return missing


class Shelf:
    """The folder STORE/<hash of the contract> with the segments of one model and contract.

    Reading needs no lock and no write permission: finished batches never change.

    Args:
        store: the folder of the complete store.
        contract: everything on which a text's vector depends, as plain data.
        dim: dimension of the vectors.
        dtype: dtype in which they are stored, a key of `DTYPES`.
        made_by: versions and the like, which may change the last bits; recorded only.
    """

    def __init__(
        self,
        *,
        store: Path,
        contract: Mapping[str, Any],
        dim: int,
        dtype: str,
        made_by: Mapping[str, Any],
    ) -> None:
        self.contract = {**contract, "dim": dim, "store_dtype": dtype}
        self.folder = store / _digest(json.dumps(self.contract, sort_keys=True).encode())
        self.dim = dim
        self.dtype = dtype
        self.made_by = dict(made_by)
        self._sound: set[tuple[str, int, int]] = set()
        self._reported: set[Path] = set()
        self._among: set[str] | None = None
        self._use = CacheUse(self.folder)

    def segment_names(self) -> list[str]:
        """Return the names of all segments, finished or not, those with the most texts first."""
        sizes = {path.parent.name: path.stat().st_size for path in self.folder.glob(f"*/{TEXTS}")}
        return sorted(sizes, key=lambda name: (-sizes[name], name))

    def look_only_in(self, names: Iterable[str]) -> None:
        """Find texts from now on in these segments alone, beside a call's own one.

        So what a call finds, and with it the texts of its batches, does not depend on what other
        processes write at the same time.
        """
        self._among = set(names)

    def segment_name(self, call: NDArray[np.bytes_], plan: Mapping[str, int]) -> str:
        """Return the name of the segment that belongs to a call.

        It depends on the call's texts and the plan alone. So a killed call finds its own segment
        again, with the texts that were missing then and batches of the same texts.

        Args:
            call: [num_texts] all texts of the call, in order.
            plan: the numbers, beside the texts, on which batches depend.
        """
        return _digest(call.tobytes() + json.dumps(plan, sort_keys=True).encode())

    def find(self, hashes: NDArray[np.bytes_], *, first: str = "") -> Found:
        """Look up texts in all segments, including those that other processes write.

        Batches are verified by their checksums before use, once in the life of this object. A
        damaged batch counts as missing, and one warning says so.

        Args:
            hashes: [num_texts], all different.
            first: the segment whose vectors have precedence.

        Raises:
            UserError: the store was written by another version.
        """
        order = np.argsort(hashes)
        found = Found(rows=np.full(len(hashes), -1, dtype=np.int64))
        for segment in self._segments(first) if len(hashes) else ():
            self._find_in(segment, hashes, order, found)
            if not found.is_missing.any():
                break
        return found

    def embeddings(self, found: Found, text_of: NDArray[np.int64]) -> GatheredEmbeddings:
        """Return the vectors of items.

        Args:
            text_of: [num_items] the text of each item, see `UniqueTexts`.
        """
        parts: list[tuple[int, NDArray[np.floating]]] = []
        for first, name in found.segments:
            segment = open_segment(self.folder / name)
            assert segment is not None, "it was there a moment ago"
            parts += [(first + start, part) for start, part in segment.vectors.parts()]
        return GatheredEmbeddings(
            parts=parts, rows=found.rows[text_of], dim=self.dim, dtype=DTYPES[self.dtype]
        )

    @contextmanager
    def writable(
        self,
        name: str,
        *,
        missing: NDArray[np.bytes_],
        plan: Mapping[str, int],
        what: str,
    ) -> Iterator[list[FinishedBatch]]:
        """Hold a segment's lock, create it if missing, and yield its intact finished batches.

        Args:
            missing: [num_texts] the texts of a new segment: those of the call that the store lacks,
                in order.
            plan: for the manifest.
            what: name of the texts, for messages.

        Raises:
            UserError: there is no space, or no permission to write.
        """
        folder = self.folder / name
        if self._among is not None:
            self._among.add(name)
        with ExitStack() as stack:
            with explained(self.folder, what=what, remedies=remedies_of_store(self.dtype)):
                folder.mkdir(parents=True, exist_ok=True)
                self._use = CacheUse(self.folder)
                if not (self.folder / CONTRACT).exists():
                    write_json(self.folder / CONTRACT, self.contract)
                stack.enter_context(locked(folder / LOCK, what=what))
                segment = self._opened(folder)
                if segment is None:
                    more = {"what": what, "plan": dict(plan), "made_by": self.made_by}
                    create_segment(
                        folder, hashes=missing, dim=self.dim, dtype=self.dtype, more=more
                    )
                    segment = open_segment(folder)
                    assert segment is not None
                finished = self._kept(segment)
            SegmentWriter(segment, finished=finished, what=what).check_room()
            yield finished

    def writer(
        self, name: str, *, finished: Sequence[FinishedBatch], what: str
    ) -> tuple[Segment, SegmentWriter]:
        """Return a segment and its writer, for each rank that writes; one rank holds the lock.

        Args:
            finished: as `writable` yields it.
        """
        segment = open_segment(self.folder / name)
        assert segment is not None, "it was made before"
        return segment, SegmentWriter(segment, finished=finished, what=what)

    def _segments(self, first: str) -> Iterator[Segment]:
        """Yield segments by name, `first` first, so that the choice among vectors is stable."""
        for folder in sorted(self.folder.glob("*/"), key=lambda path: (path.name != first, path)):
            if self._among is not None and folder.name not in self._among | {first}:
                continue
            segment = self._opened(folder)
            if segment is not None:
                yield segment

    def _opened(self, folder: Path) -> Segment | None:
        try:
            segment = open_segment(folder)
            if segment is not None:
                self._check_type(segment)
        except DamagedSegmentError as error:
            self._report(folder, str(error))
            return None
        return segment

    def _check_type(self, segment: Segment) -> None:
        """Refuse vectors of another dtype or dimension than all of this contract have."""
        found = (segment.vectors.dim, segment.vectors.dtype.name)
        if found != (self.dim, self.dtype):
            raise DamagedSegmentError(f"its vectors are {found[0]} {found[1]}")

    def _kept(self, segment: Segment) -> list[FinishedBatch]:
        """Return the intact batches of a segment; remove the others from its journals."""
        said = segment.finished()
        is_sound = self._are_sound(segment, said)
        finished = [said[i] for i in np.flatnonzero(is_sound)]
        if len(finished) < len(said):
            replace_journals(segment.folder, finished)
        return finished

    def _find_in(
        self,
        segment: Segment,
        hashes: NDArray[np.bytes_],
        order: NDArray[np.int64],
        found: Found,
    ) -> None:
        """Add the segment's vectors of texts that are still missing; `order` sorts `hashes`."""
        batches = segment.finished()
        if not batches:
            return
        batch_of = np.repeat(np.arange(len(batches)), [len(batch.rows) for batch in batches])
        place = np.concatenate([np.arange(batch.start, batch.stop) for batch in batches])
        there = segment.hashes[np.concatenate([batch.rows for batch in batches])]
        nearest = np.searchsorted(hashes, there, sorter=order)
        text = order[np.minimum(nearest, len(hashes) - 1)]
        is_wanted = (hashes[text] == there) & (found.rows[text] < 0)
        taken = np.unique(batch_of[is_wanted])
        is_sound = np.zeros(len(batches), dtype=bool)
        is_sound[taken] = self._are_sound(segment, [batches[i] for i in taken])
        is_wanted &= is_sound[batch_of]
        if is_wanted.any():
            found.rows[text[is_wanted]] = found.num_rows + place[is_wanted]
            found.segments.append((found.num_rows, segment.folder.name))
            found.num_rows += len(segment)

    def _are_sound(self, segment: Segment, batches: Sequence[FinishedBatch]) -> NDArray[np.bool_]:
        """Return whether each batch is intact, [num_batches]; each is verified once."""
        is_sound = np.zeros(len(batches), dtype=bool)
        for i, batch in enumerate(batches):
            key = (segment.folder.name, batch.start, batch.checksum)
            is_sound[i] = key in self._sound or segment.is_sound(batch)
            if is_sound[i]:
                self._sound.add(key)
        lost = [batch for batch, sound in zip(batches, is_sound, strict=True) if not sound]
        if lost:
            num_texts = sum(len(batch.rows) for batch in lost)
            self._report(
                segment.folder,
                f"the vectors of {num_texts:,} texts are truncated, or not as written",
            )
        return is_sound

    def _report(self, folder: Path, damage: str) -> None:
        if folder not in self._reported:
            self._reported.add(folder)
            logger.warning("%s is damaged: %s. What is needed is encoded again", folder, damage)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
