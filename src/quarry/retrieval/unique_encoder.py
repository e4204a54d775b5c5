"""Encodes equal texts once; embeddings stay in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from quarry.retrieval.embeddings import EmbeddingShare, GatheredEmbeddings
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.unique_texts import ChosenItems, unique_texts
from quarry.types import Document, Query, Role


class UniqueEncoder:
    """An encoder that knows equal texts: each goes through the model once a call.

    For weights that change from call to call, as in training.

    Args:
        encoder: does the work.
    """

    def __init__(self, *, encoder: Encoder) -> None:
        self.encoder = encoder

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.encoder.device

    def encode(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> GatheredEmbeddings:
        """Embeddings [num_texts, dim], fp32; see `Encoder.encode`."""
        texts = unique_texts(items, self.encoder.tokenizer.frames[role].text_of)
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
        """The items whose texts this process has encoded; see `Encoder.encode_share`."""
        texts = unique_texts(items, self.encoder.tokenizer.frames[role].text_of)
        share = self.encoder.encode_share(ChosenItems(items, texts.first), role, label=label)
        place = np.full(len(texts), -1, dtype=np.int64)
        place[share.items] = np.arange(len(share.items))
        own = np.flatnonzero(place[texts.text_of] >= 0)
        return EmbeddingShare(
            items=own, embeddings=share.embeddings.choose(place[texts.text_of[own]])
        )
