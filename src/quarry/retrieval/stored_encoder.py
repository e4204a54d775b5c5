"""Read embeddings from the store; encode and store those that are missing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from quarry.distributed import world
from quarry.errors import UserError
from quarry.retrieval.embeddings import EmbeddingShare, GatheredEmbeddings
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.encoding_plan import NUM_TEXTS_IN_FIRST_WINDOW
from quarry.retrieval.store.segment import Segment
from quarry.retrieval.store.shelf import Found, Shelf
from quarry.retrieval.store.writer import SegmentWriter
from quarry.retrieval.unique_texts import ChosenItems, UniqueTexts, unique_texts
from quarry.runtime.progress import Progress, tracked
from quarry.types import Document, Query, Role

logger = logging.getLogger(__name__)


class StoredEncoder:
    """Encoder for fixed weights: encodes no text of a role twice, whatever set it is in.

    A call that is killed at any moment continues where it was: finished batches are kept, and the
    others have the same texts as before. The result equals that of an uninterrupted call, to the
    bit if the machine computes identically. Only texts that are encoded are tokenized.

    Args:
        encoder: encodes what is missing.
        shelves: the store's embeddings of each role.
    """

    def __init__(self, *, encoder: Encoder, shelves: Mapping[Role, Shelf]) -> None:
        self.encoder = encoder
        self.shelves = shelves

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.encoder.device

    def encode(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> GatheredEmbeddings:
        """Return embeddings [num_texts, dim] in the dtype of the store, read from it when sliced.

        Waits if another process encodes the same texts, and then uses its result.

        Raises:
            UserError: as in `Encoder.encode`; the store has no space, is not writable, or was
            written by another version.
        """
        found, texts = self._found(items, role, what=label or role)
        return self.shelves[role].embeddings(found, texts.text_of)

    def encode_share(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> EmbeddingShare:
        """Return this rank's part of the embeddings, of equal size on all ranks; see `encode`."""
        found, texts = self._found(items, role, what=label or role)
        own = np.array_split(np.arange(len(items)), world.size())[world.rank()]
        embeddings = self.shelves[role].embeddings(found, texts.text_of[own])
        return EmbeddingShare(items=own, embeddings=embeddings)

    def _found(
        self, items: Sequence[Query | Document], role: Role, *, what: str
    ) -> tuple[Found, UniqueTexts]:
        """Return the locations of all embeddings, once all are in the store."""
        shelf = self.shelves[role]
        read = tracked(items, label=f"{what}, looking for equal texts", units="texts")
        texts = unique_texts(read, self.encoder.tokenizer.frames[role].text_of)
        own = shelf.segment_name(texts.hashes, self._plan)
        # one rank searches, so that all have the same result, and each checksum is read once
        look = partial(shelf.find, texts.hashes, first=own)
        found = world.first_does(look)
        logger.info(
            "%s: %d texts, %d of them different, %d in the store already",
            what,
            len(items),
            len(texts),
            len(texts) - found.is_missing.sum(),
        )
        segment = own
        # a second time only if others lost texts that this call's segment did not begin with
        for _ in range(2):
            if not found.is_missing.any():
                break
            self._encode(items, texts, role, segment, missing=found.is_missing, what=what)
            found = world.first_does(look)
            segment = shelf.segment_name(texts.hashes[found.is_missing], self._plan)
        if found.is_missing.any():
            raise UserError(
                f"{shelf.folder} does not hold what was just written to it: {what} is incomplete. "
                "Is its disk sound? Keep embeddings elsewhere, paths.store_dir=DIR, or in memory, "
                "evaluation.store=false."
            )
        return found, texts

    @property
    def _plan(self) -> dict[str, int]:
        """The numbers, beside the texts, on which batches depend."""
        return {
            "max_tokens_per_batch": self.encoder.max_tokens_per_batch,
            "num_texts_per_window": self.encoder.num_texts_per_window,
            "num_texts_in_first_window": NUM_TEXTS_IN_FIRST_WINDOW,
        }

    def _encode(
        self,
        items: Sequence[Query | Document],
        texts: UniqueTexts,
        role: Role,
        name: str,
        *,
        missing: NDArray[np.bool_],
        what: str,
    ) -> None:
        """Complete a segment: one that an earlier call has left, or a new one for missing texts.

        One rank holds the lock, and all ranks write.
        """
        shelf = self.shelves[role]
        with ExitStack() as held:
            lock = shelf.writable(name, missing=texts.hashes[missing], plan=self._plan, what=what)
            finished = world.first_does(lambda: held.enter_context(lock))
            segment, writer = shelf.writer(name, finished=finished, what=what)
            if writer.num_open == 0:  # another job, for which this one waited, has completed it
                return
            logger.info("%s: encoding %d of %d texts", what, writer.num_open, len(segment))
            is_here = np.isin(texts.hashes, segment.hashes)
            self._fill(segment, writer, ChosenItems(items, texts.first[is_here]), role, what=what)
            writer.sync()
            world.barrier()

    def _fill(
        self,
        segment: Segment,
        writer: SegmentWriter,
        items: Sequence[Query | Document],
        role: Role,
        *,
        what: str,
    ) -> None:
        """Encode the open batches of the plan, and only those."""
        assert len(items) == len(segment), "a segment holds texts of the call that it is named by"
        num_open = writer.num_open
        progress = Progress(
            label=what,
            total=len(segment),
            units="texts",
            num_done=len(segment) - num_open,
            num_ranks=world.size(),
        )
        with progress, closing(self.encoder.plan(items, role, is_done=writer.is_done)) as plan:
            encoded = self.encoder.encode_batches(plan, role, num_texts=num_open)
            with closing(encoded) as batches:
                for batch, embeddings in batches:
                    writer.write(batch.start, batch.rows, embeddings)
                    progress.add(len(batch.rows), num_tokens=sum(map(len, batch.texts)))
