"""Any decoder or encoder works packed: the same states as each text alone in plain transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from helpers.architectures import tiny_backbone
from quarry.data.packing import pack
from quarry.models.attention import is_causal_by_design
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.mean import Mean

# fp32 sums in another order; states are of size 1
TOLERANCE = 1e-5

# more tokens in all than the position table of an encoder has rows
LENGTHS = [1, 100, 2, 17, 3, 64, 1, 99, 31]

GROUPED = {"num_key_value_heads": 2}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"]}

DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED),
    "qwen3": ("qwen3", {**GROUPED, "head_dim": 16}),
    "mistral with a sliding window": ("mistral", {**GROUPED, "sliding_window": 5}),
    "gemma3": ("gemma3_text", {**GROUPED, **ALTERNATING, "head_dim": 16, "sliding_window": 5}),
    "olmo2": ("olmo2", GROUPED),
    "mixture of experts": (
        "qwen3_moe",
        {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "roberta": ("roberta", {"pad_token_id": 1}),  # positions begin at 2
    "modernbert": ("modernbert", {**ALTERNATING, "local_attention": 8}),
    "eurobert": ("eurobert", GROUPED),
    "embeddinggemma": (
        "gemma3_text",
        {
            **GROUPED,
            **ALTERNATING,
            "head_dim": 16,
            "sliding_window": 8,
            "use_bidirectional_attention": True,
        },
    ),
}
ALL = DECODERS | ENCODERS
EACH = pytest.mark.parametrize("name", ALL)


def backbone_of(name: str) -> PreTrainedModel:
    model_type, settings = ALL[name]
    return tiny_backbone(model_type, **settings)


def packed_model(name: str) -> BiEncoder:
    backbone = backbone_of(name)
    return BiEncoder(
        backbone=backbone, pooling=Mean(), is_causal=is_causal_by_design(backbone)
    ).eval()


def texts() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(3, 128, length) for length in LENGTHS]  # no special tokens


def alone(reference: PreTrainedModel, ids: np.ndarray) -> Tensor:
    states: Tensor = reference(input_ids=torch.tensor(ids)[None]).last_hidden_state[0]
    return states


@EACH
def test_packed_states_equal_each_text_alone_in_plain_transformers(name: str) -> None:
    model, reference = packed_model(name), backbone_of(name)
    with torch.inference_mode():
        packed = model.token_states(pack(texts())).split(LENGTHS)
        for states, ids in zip(packed, texts(), strict=True):
            torch.testing.assert_close(states, alone(reference, ids), atol=TOLERANCE, rtol=0)


@EACH
def test_the_direction_is_the_one_that_plain_transformers_has(name: str) -> None:
    reference = backbone_of(name)
    assert is_causal_by_design(reference) == (name in DECODERS)
    before = texts()[3]
    after = np.append(before[:-1], (before[-1] + 1) % 128)
    with torch.inference_mode():
        first, second = alone(reference, before), alone(reference, after)
    has_state_before_it_moved = not torch.equal(first[-2], second[-2])
    assert has_state_before_it_moved == (name in ENCODERS)


@EACH
def test_no_text_notices_what_stands_beside_it(name: str) -> None:
    model = packed_model(name)
    before, after = texts(), texts()
    after[1] = (after[1] + 1 - 3) % 125 + 3
    with torch.inference_mode():
        first = model.token_states(pack(before)).split(LENGTHS)
        second = model.token_states(pack(after)).split(LENGTHS)
    has_moved = [not torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    assert has_moved == [i == 1 for i in range(len(LENGTHS))]


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert"])
def test_gradients_of_a_packed_batch_equal_those_of_single_texts(name: str) -> None:
    model, reference = packed_model(name).double(), backbone_of(name).double()
    model.token_states(pack(texts())).square().sum().backward()
    sum(alone(reference, ids).square().sum() for ids in texts()).backward()
    for (key, ours), theirs in zip(
        model.backbone.named_parameters(), reference.parameters(), strict=True
    ):
        if theirs.grad is None:  # a pooler that nobody reads
            assert ours.grad is None, key
        else:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-10, msg=key)
