"""A store encoder around a tiny model, and corpora whose texts repeat."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from helpers.models import letter_tokenizer, tiny_bi_encoder
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.embeddings import Embeddings
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.store.shelf import Shelf
from quarry.retrieval.stored_encoder import StoredEncoder
from quarry.types import ROLES, Document

PROMPT = Prompt(query="Q:{text}", document="P:{text}", max_document_length=60)
DIM = 32


def texts(num_texts: int, *, seed: int = 0) -> list[str]:
    """Different texts of 1 to 60 letters."""
    rng = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < num_texts:
        made["".join(rng.choices(string.ascii_letters, k=rng.randrange(1, 60)))] = None
    return list(made)


def documents(texts: Sequence[str]) -> list[Document]:
    return [Document(document_id=f"d{i}", text=text) for i, text in enumerate(texts)]


def tiny_encoder(
    *,
    model: BiEncoder | None = None,
    tokenizer: TextTokenizer | None = None,
    max_tokens: int = 200,
    window: int = 64,
    made: Callable[..., Encoder] = Encoder,
) -> Encoder:
    return made(
        model=model or tiny_bi_encoder(),
        tokenizer=tokenizer or TextTokenizer(tokenizer=letter_tokenizer(), prompt=PROMPT),
        max_tokens_per_batch=max_tokens,
        num_texts_per_window=window,
    )


def stored(
    store: Path, *, encoder: Encoder | None = None, dtype: str = "float32", name: str = "tiny"
) -> StoredEncoder:
    """A new object on the store, as another process would make it."""
    shelves = {
        role: Shelf(
            store=store,
            contract={"model": name, "role": role},
            dim=DIM,
            dtype=dtype,
            made_by={"torch": str(torch.__version__)},
        )
        for role in ROLES
    }
    return StoredEncoder(encoder=encoder or tiny_encoder(), shelves=shelves)


def array(embeddings: Embeddings) -> NDArray[np.floating]:
    """All of them, in memory."""
    return embeddings[:].numpy()
