"""The last layer for pooled tokens alone == for all tokens: embeddings and gradients."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from helpers.architectures import tiny_backbone
from helpers.models import tiny_qwen
from quarry.data.packing import pack
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.lora import LoRA
from quarry.models.bi_encoder import BiEncoder
from quarry.models.compilation import compile_layers
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.mean import Mean
from quarry.types import TokenBatch

LENGTHS = [1, 100, 2, 17, 3, 64, 1, 31]

GROUPED = {"num_key_value_heads": 2}
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED),
    "mistral": ("mistral", {**GROUPED, "sliding_window": None}),
    "gemma": ("gemma", {**GROUPED, "head_dim": 16}),
    "qwen2": ("qwen2", GROUPED),
    "qwen3": ("qwen3", {**GROUPED, "head_dim": 16}),
    "qwen2_vl": ("qwen2_vl_text", {**GROUPED, "rope_parameters": SECTIONS}),
    "qwen2_5_vl": ("qwen2_5_vl_text", {**GROUPED, "rope_parameters": SECTIONS}),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "a sliding window": ("mistral", {**GROUPED, "sliding_window": 5}),
    "norms behind": ("olmo2", GROUPED),
    "experts": (
        "qwen3_moe",
        {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "an encoder": ("bert", {}),
}


def backbone_of(name: str) -> PreTrainedModel:
    model_type, settings = (PLAIN | OTHERS)[name]
    return tiny_backbone(model_type, **settings)


def model_of(backbone: PreTrainedModel, **more: Any) -> BiEncoder:
    return BiEncoder(backbone=backbone, pooling=LastToken(), **more)


def batch() -> TokenBatch:
    random = np.random.default_rng(0)
    return pack([random.integers(3, 128, length) for length in LENGTHS])


def of_all_tokens(model: BiEncoder, tokens: TokenBatch) -> Tensor:
    """The embeddings as they were made before: all of the last layer, then the pooling."""
    states = model.token_states(tokens)
    assert len(states) == tokens.num_tokens
    return normalize(model.pooling(states, tokens), dim=-1)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("name", PLAIN)
def test_embeddings_are_the_same(name: str, is_causal: bool) -> None:
    model = model_of(backbone_of(name), is_causal=is_causal).eval()
    assert model.pools_in_last_layer
    with torch.inference_mode():
        expected, found = of_all_tokens(model, batch()), model(batch())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)  # fp32, sums in another order


@pytest.mark.parametrize("name", OTHERS)
def test_layers_that_are_not_plain_are_left_alone(name: str) -> None:
    model = model_of(backbone_of(name), is_causal=name != "an encoder").eval()
    assert not model.pools_in_last_layer
    with torch.inference_mode():
        assert torch.equal(model(batch()), of_all_tokens(model, batch()))


def test_other_poolings_read_all_tokens() -> None:
    model = BiEncoder(backbone=tiny_qwen(), pooling=Mean())
    assert not model.pools_in_last_layer


def lora_model(*, dropout: float = 0.0) -> BiEncoder:
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    backbone = LoRA(r=2, alpha=4, dropout=dropout, target_modules=targets)(tiny_qwen())
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    use_fast_lora(backbone)
    return model_of(backbone).train()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("is_lora", [True, False])
def test_gradients_are_the_same(is_lora: bool, checkpointing: bool) -> None:
    model = (lora_model() if is_lora else model_of(tiny_qwen())).double().train()
    if checkpointing:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    reference = copy.deepcopy(model)
    weights = torch.randn(len(LENGTHS), 32, dtype=torch.float64)
    (model(batch()) * weights).sum().backward()
    (of_all_tokens(reference, batch()) * weights).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert gradients
    for name, parameter in reference.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(
                gradients[name], parameter.grad, rtol=1e-9, atol=1e-11, msg=name
            )


def test_compiled_layers_give_the_same() -> None:
    torch._dynamo.reset()
    model = lora_model()
    reference = copy.deepcopy(model)
    compile_layers(model.backbone, backend="aot_eager")
    for tokens in (batch(), pack([[9] * 30, [8] * 4, [7] * 9])):
        found, expected = model(tokens), of_all_tokens(reference, tokens)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        found.square().sum().backward()
    torch._dynamo.reset()
