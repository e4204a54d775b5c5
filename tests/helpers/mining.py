"""Training examples and an encoder for tests of mining: embeddings by hash, no model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from quarry.data.text_ids import text_id
from quarry.retrieval.embeddings import EmbeddingShare, GatheredEmbeddings
from quarry.types import Document, Query, Role, TrainExample

DIM = 16


def passage(text: str, title: str = "") -> Document:
    return Document(document_id=text_id(f"{title}\n{text}"), text=text, title=title)


def example(
    query: str, positives: Sequence[str], negatives: Sequence[str] = (), **more: object
) -> TrainExample:
    return TrainExample(
        query=Query(query_id=text_id(query), text=query),
        positives=tuple(map(passage, positives)),
        hard_negatives=tuple(map(passage, negatives)),
        **more,  # type: ignore[arg-type]
    )


def made_examples(number: int = 40) -> list[TrainExample]:
    """Examples with one positive and one hard negative; two in a row share a query."""
    return [
        example(f"query {index // 2}", [f"positive {index}"], [f"negative {index % 7}"])
        for index in range(number)
    ]


def embedding(text: str) -> np.ndarray:
    """A unit vector that depends on the text alone."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


class HashEncoder:
    """Encodes each text by its hash, and counts the texts."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.num_encoded = 0

    def encode(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> GatheredEmbeddings:
        self.num_encoded += len(items)
        rows = np.stack([embedding(f"{role} {item.text}") for item in items])
        return GatheredEmbeddings(
            parts=[(0, rows)], rows=np.arange(len(items)), dim=DIM, dtype=torch.float32
        )

    def encode_share(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> EmbeddingShare:
        embeddings = self.encode(items, role, label=label)
        return EmbeddingShare(items=np.arange(len(items)), embeddings=embeddings)
