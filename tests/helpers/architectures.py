"""Tiny random backbones of other architectures than Qwen2, built in milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

_SHAPE = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # large: a wrong mask must show
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny_backbone(model_type: str, **more: Any) -> PreTrainedModel:
    """What `AutoModel` makes of a config of this type, seeded, in fp32.

    Calls with the same arguments have the same weights.
    """
    config = AutoConfig.for_model(model_type, **(_SHAPE | more))
    torch.manual_seed(0)
    return AutoModel.from_config(config, dtype=torch.float32).eval()
