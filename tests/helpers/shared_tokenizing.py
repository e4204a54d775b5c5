"""Corpora that several ranks tokenize together, and what each rank has tokenized and encoded."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.models import letter_tokenizer, tiny_bi_encoder
from helpers.stores import PROMPT, array, documents, stored, texts, tiny_encoder
from quarry.data.tokenization import TextTokenizer, TokenizedText
from quarry.distributed import world
from quarry.errors import UserError
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.encoding_plan import PlannedBatch
from quarry.types import Document, Query, Role

BAD = "cannot be tokenized"
NUM_STORED = 700
"""In about 120 batches."""


class NotedTokenizer(TextTokenizer):
    """Notes which documents it has seen, and how many tokens they have."""

    def __init__(self) -> None:
        super().__init__(tokenizer=letter_tokenizer(), prompt=PROMPT)
        self.seen: list[str] = []
        self.num_tokens = 0

    def __call__(self, items: Sequence[Query | Document], role: Role) -> list[TokenizedText]:
        if any(item.text == BAD for item in items):
            raise UserError(f"{BAD!r} has no tokens")
        self.seen += [item.document_id for item in items if isinstance(item, Document)]
        tokenized = super().__call__(items, role)
        self.num_tokens += sum(map(len, tokenized))
        return tokenized


class InStep(Encoder):
    """As with weights in shards: in each forward pass all ranks wait for one another."""

    has_equal_steps = True

    def _forward(self, token_ids: Sequence[TokenizedText]) -> torch.Tensor:
        world.total(torch.ones(1))
        return super()._forward(token_ids)


class NotedEncoder(Encoder):
    """Notes the batches that go through the model, and ends its process before one of them."""

    dies_at = 10**9

    def encode_batches(
        self, batches: Iterable[PlannedBatch], role: Role, *, num_texts: int
    ) -> Generator[tuple[PlannedBatch, torch.Tensor]]:
        self.starts: list[int] = []

        def noted() -> Generator[PlannedBatch]:
            for batch in batches:
                if len(self.starts) == self.dies_at:
                    os._exit(0)  # as killed: nothing is put down
                self.starts.append(batch.start)
                yield batch

        return super().encode_batches(noted(), role, num_texts=num_texts)


def corpora() -> dict[str, list[Document]]:
    """Shuffled and sorted by length; as long as a piece; fewer texts than ranks; none."""
    many = texts(1500)
    return {
        "shuffled": documents(many),
        "sorted": documents(sorted(many, key=len)),
        "longest first": documents(sorted(many[:400], key=len, reverse=True)),
        "two": documents(texts(2)),
        "one": documents(["a"]),
        "none": [],
    }


def tokenize_all() -> dict[str, dict[str, Any]]:
    """By corpus and kind of encoder: what this rank has seen, encoded and got."""
    found: dict[str, dict[str, Any]] = {}
    for kind, made, window in (
        ("plain", Encoder, 512),
        ("in step", InStep, 512),
        ("small windows", InStep, 5),  # fewer batches in a window than ranks
    ):
        for name, corpus in corpora().items():
            some = corpus[:200] if kind == "small windows" else corpus
            tokenizer = NotedTokenizer()
            encoder = tiny_encoder(tokenizer=tokenizer, window=window, made=made)
            passes: list[int] = []
            encoder.model.register_forward_pre_hook(
                lambda _, args, passes=passes: passes.append(args[0].num_tokens)
            )
            embeddings = encoder.encode(some, "document")
            found[f"{kind} {name}"] = {
                "seen": tokenizer.seen,
                "num_tokens": tokenizer.num_tokens,
                "passes": passes,
                "embeddings": embeddings,
            }
    return found


def fail_to_tokenize() -> str:
    """The error of a corpus of which one text cannot be tokenized, in the third window or so."""
    corpus = documents([*texts(400), BAD, *texts(300, seed=1)])
    encoder = tiny_encoder(tokenizer=NotedTokenizer(), window=128)
    try:
        encoder.encode(corpus, "document")
    except UserError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def fail_to_encode() -> None:
    """The second rank fails in its third batch, as where memory runs out; it has to end."""

    class Failing(NotedEncoder):
        def _forward(self, token_ids: Sequence[TokenizedText]) -> torch.Tensor:
            if world.rank() == 1 and len(self.starts) == 3:
                raise UserError("does not fit")
            time.sleep(0.001)
            return super()._forward(token_ids)

    encoder = tiny_encoder(tokenizer=NotedTokenizer(), window=64, made=Failing)
    encoder.encode(documents(texts(1000)), "document")


def encode_stored(store: Path, *, dies_at: int | None = None) -> dict[str, Any]:
    """A corpus in the store; of a call that dies nothing comes back."""
    model = tiny_bi_encoder()
    tokenizer = NotedTokenizer()
    encoder = tiny_encoder(model=model, tokenizer=tokenizer, made=NotedEncoder)
    assert isinstance(encoder, NotedEncoder)
    if dies_at is not None:
        encoder.dies_at = dies_at
    result = stored(store, encoder=encoder)
    embeddings = array(result.encode(documents(texts(NUM_STORED)), "document"))
    return {
        "starts": encoder.starts,
        "seen": tokenizer.seen,
        "embeddings": torch.from_numpy(np.array(embeddings)),
    }
