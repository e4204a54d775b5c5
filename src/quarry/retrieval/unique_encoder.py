"""Encode equal texts once, and a shared corpus once, within one evaluation."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from quarry.retrieval.corpus_embeddings import CorpusStorage
from quarry.retrieval.embeddings import EmbeddingShare, GatheredEmbeddings
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.unique_texts import ChosenItems, UniqueTexts, unique_texts
from quarry.runtime.progress import tracked
from quarry.types import Document, Query, Role

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    """The share of the last encoded corpus, and the key of its texts."""

    key: tuple[Role, bytes]
    share: EmbeddingShare


class UniqueEncoder:
    """Encoder that encodes equal texts once per call.

    The last corpus is cached: MS MARCO dev and both TREC DL tracks search the same passages. Its
    embeddings are then those of the first time, equal to the bit. It is released before another
    corpus is encoded, so that never two are in memory or on disk.

    The weights must not change while an encoder lives: each evaluation in training has its own.

    Args:
        encoder: encodes the texts.
        storage: storage for the embeddings of a corpus; None: memory, float32.
    """

    def __init__(self, *, encoder: Encoder, storage: CorpusStorage | None = None) -> None:
        self.encoder = encoder
        self.storage = storage
        self._kept: _Kept | None = None

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.encoder.device

    def encode(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> GatheredEmbeddings:
        """Return embeddings [num_texts, dim], fp32; see `Encoder.encode`."""
        texts = self._unique(items, role, what=label or role)
        embeddings = self.encoder.encode(ChosenItems(items, texts.first), role, label=label)
        return GatheredEmbeddings(
            parts=[(0, np.asarray(embeddings))],
            rows=texts.text_of,
            dim=embeddings.shape[1],
            dtype=embeddings.dtype,
        )

    def encode_share(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> EmbeddingShare:
        """Return the items whose texts this rank has encoded; see `Encoder.encode_share`."""
        texts = self._unique(items, role, what=label or role)
        share = self._share_of(texts, items, role, label=label)
        place = np.full(len(texts), -1, dtype=np.int64)
        place[share.items] = np.arange(len(share.items))
        own = np.flatnonzero(place[texts.text_of] >= 0)
        return EmbeddingShare(
            items=own, embeddings=share.embeddings.choose(place[texts.text_of[own]])
        )

    def _unique(self, items: Sequence[Query | Document], role: Role, *, what: str) -> UniqueTexts:
        read = tracked(items, label=f"{what}, looking for equal texts", units="texts")
        return unique_texts(read, self.encoder.tokenizer.frames[role].text_of)

    def _share_of(
        self, texts: UniqueTexts, items: Sequence[Query | Document], role: Role, *, label: str
    ) -> EmbeddingShare:
        """Return the share of unique texts; the same texts in one order are encoded once."""
        key = (role, hashlib.blake2b(texts.hashes.tobytes()).digest())
        if self._kept is not None and self._kept.key == key:
            logger.info("%s: the texts of the last corpus; they are encoded already", label or role)
            return self._kept.share
        self._kept = None  # before the next one takes memory or disk space
        place = None
        if self.storage is not None:
            dim = self.encoder.model.embedding_dim
            place = self.storage.open(num_texts=len(texts), dim=dim, what=label or role)
        share = self.encoder.encode_share(
            ChosenItems(items, texts.first), role, label=label, place=place
        )
        self._kept = _Kept(key=key, share=share)
        return share
