"""Encoding with and without the shared prefix and the pooled last layer; what each pass took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor

from quarry.data.tokenization import TextTokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.encoder import Encoder
from quarry.types import Document, Query, Role, TokenBatch

TOLERANCE = 1e-5
"""fp32 sums in another order; embeddings have length 1."""


@dataclass(frozen=True)
class Pass:
    """One pass of a batch through the backbone, and which shortcuts it took."""

    num_tokens: int
    is_shared: bool
    is_pooled: bool


@contextmanager
def watched(model: BiEncoder) -> Iterator[list[Pass]]:
    """Record the passes of batches; those of the prefix itself are left out."""
    passes: list[Pass] = []
    token_states = model.token_states

    def recorded(tokens: TokenBatch, **more: Any) -> Tensor:
        if "prefix_states" not in more:
            passes.append(Pass(tokens.num_tokens, "key_rows" in more, "pooled_rows" in more))
        return token_states(tokens, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "token_states", recorded)
        yield passes


@contextmanager
def without_shortcuts(model: BiEncoder) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "encode_prefix", lambda tokens: None)
        patch.setattr(model, "pools_in_last_layer", False)
        yield


def encoder_of(
    model: BiEncoder, tokenizer: TextTokenizer, *, max_tokens_per_batch: int = 1_000
) -> Encoder:
    return Encoder(model=model, tokenizer=tokenizer, max_tokens_per_batch=max_tokens_per_batch)


def plain(encoder: Encoder, given: Sequence[Query | Document], role: Role) -> Tensor:
    """The embeddings without shortcuts."""
    with without_shortcuts(encoder.model), watched(encoder.model) as passes:
        found = encoder.encode(given, role)
    assert not any(one.is_shared or one.is_pooled for one in passes)
    return found


def alone(encoder: Encoder, given: Sequence[Query | Document], role: Role) -> Tensor:
    """The embeddings without shortcuts, one text in a pass."""
    single = encoder_of(encoder.model, encoder.tokenizer, max_tokens_per_batch=1)
    return plain(single, given, role)


def check(encoder: Encoder, given: Sequence[Query | Document], role: Role) -> list[Pass]:
    """Compare the embeddings with those without shortcuts; return the passes that made them."""
    expected = alone(encoder, given, role)
    with watched(encoder.model) as passes:
        found = encoder.encode(given, role)
    assert (found - expected).abs().max() <= TOLERANCE
    return passes
