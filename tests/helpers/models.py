"""Tiny random models, built in milliseconds."""

from __future__ import annotations

import torch
from transformers import Qwen2Config, Qwen2Model

from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.base import Pooling
from quarry.models.pooling.mean import Mean


def tiny_qwen(*, dtype: torch.dtype = torch.float32, **more: object) -> Qwen2Model:
    """A seeded two-layer Qwen2 with grouped-query attention and 128 tokens."""
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "vocab_size": 128,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,  # large: a wrong mask must show
        "use_cache": False,
    }
    return Qwen2Model(Qwen2Config(**(settings | more))).to(dtype).eval()


def tiny_bi_encoder(
    *, pooling: Pooling | None = None, is_causal: bool = True, dtype: torch.dtype = torch.float32
) -> BiEncoder:
    return BiEncoder(
        backbone=tiny_qwen(dtype=dtype), pooling=pooling or Mean(), is_causal=is_causal
    ).eval()
