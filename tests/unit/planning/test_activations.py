"""What layers keep for the backward pass: the count, and what autograd really holds on to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2Model

from quarry.data.packing import pack
from quarry.models.adapters.base import Adapter
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.full import FullFineTuning
from quarry.models.adapters.lora import LoRA
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.last_token import LastToken
from quarry.planning.activations import (
    Kept,
    LayerShape,
    activation_bytes,
    layer_bytes,
    passing_bytes,
)

SHAPE = LayerShape(
    num_layers=3, hidden_size=10, intermediate_size=100, attention_size=20, key_value_size=5,
    num_heads=4,
)  # fmt: skip
HALF = Kept(
    itemsize=2, state_itemsize=2, is_compiled=True, gradient_checkpointing=False,
    trains_backbone=False,
)  # fmt: skip

TEXTS = [np.arange(16)] * 8  # of one length: the grid that attention takes on a CPU is full
NUM_TOKENS = 128
HIDDEN, INTERMEDIATE, HEADS = 64, 160, 4
RANK = 8
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def test_by_hand() -> None:
    attention = 2 * (2 * 20 + 2 * 5) + 4 * 4
    compiled = 2 * (2 * 10 + 2 * 10 + 3 * 100) + attention
    last = 10 * 4
    assert layer_bytes(SHAPE, HALF) == compiled
    assert activation_bytes(SHAPE, HALF, num_tokens=7) == 7 * (3 * compiled + last)
    assert passing_bytes(SHAPE, HALF, num_tokens=10) == 10 * 1.9 * 100 * 2
    eager = replace(HALF, is_compiled=False)
    assert layer_bytes(SHAPE, eager) == 2 * 10 * 4 + 2 * (2 * 10 + 4 * 100) + attention
    low_rank = replace(HALF, num_low_rank=3 * 14)
    assert layer_bytes(SHAPE, low_rank) == compiled + 2 * 14


def test_gradient_checkpointing_by_hand() -> None:
    attention = 2 * (2 * 20 + 2 * 5) + 4 * 4
    once = 2 * (2 * 10 + 2 * 100) + attention
    selective = replace(HALF, gradient_checkpointing="selective")
    assert layer_bytes(SHAPE, selective) == once
    assert not selective.recomputes_layers
    assert replace(selective, is_compiled=False).recomputes_layers, "of plain layers it is full"
    full = replace(HALF, gradient_checkpointing=True)
    assert activation_bytes(SHAPE, full, num_tokens=7) == 7 * (3 * 10 * 2 + 10 * 4)
    assert passing_bytes(SHAPE, full, num_tokens=10) == int(10 * (4.1 * 100 * 2 + once))


def test_dropout_costs_memory_only_where_the_compiler_keeps_masks() -> None:
    dropping = replace(HALF, has_dropout=True, num_inputs=3 * 100)
    assert layer_bytes(SHAPE, dropping) == pytest.approx(layer_bytes(SHAPE, HALF) + 115)
    for way in ({"gradient_checkpointing": "selective"}, {"is_compiled": False}):
        with_it, without = replace(dropping, **way), replace(HALF, **way)
        assert layer_bytes(SHAPE, with_it) == layer_bytes(SHAPE, without)


def lora() -> LoRA:
    return LoRA(r=RANK, alpha=4, dropout=0, target_modules=TARGETS)


def held_bytes(num_layers: int, adapter: Adapter, dtype: torch.dtype, *, in_half: bool) -> int:
    """What autograd holds after a forward pass, weights left out."""
    config = Qwen2Config(
        vocab_size=128, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE,
        num_hidden_layers=num_layers, num_attention_heads=HEADS, num_key_value_heads=HEADS,
        use_cache=False,
    )  # fmt: skip
    backbone = adapter(Qwen2Model(config).to(dtype))
    if not adapter.trains_backbone:
        use_fast_lora(backbone)
    model = BiEncoder(backbone=backbone, pooling=LastToken()).train()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_half),
    ):
        model(pack(TEXTS))
    return sum(t.untyped_storage().nbytes() for at, t in held.items() if at not in weights)


@pytest.mark.parametrize(
    ("adapter", "dtype", "in_half"),
    [
        (FullFineTuning(), torch.float32, False),
        (FullFineTuning(), torch.float32, True),
        (lora(), torch.bfloat16, True),
    ],
    ids=["all-fp32", "all-mixed", "lora"],
)
def test_autograd_holds_what_is_counted(
    adapter: Adapter, dtype: torch.dtype, in_half: bool
) -> None:
    few, many = (held_bytes(number, adapter, dtype, in_half=in_half) for number in (2, 4))
    held = (many - few) / 2 / NUM_TOKENS
    itemsize = 2 if in_half else dtype.itemsize
    # the grid, which the kernel does without: queries, keys, values and the result once more
    held -= 4 * HIDDEN * itemsize
    if adapter.trains_backbone and in_half:
        num_weights = 4 * HIDDEN**2 + 3 * HIDDEN * INTERMEDIATE
        held -= num_weights * itemsize / NUM_TOKENS  # casts of weights are counted by themselves
    if not adapter.trains_backbone:
        num_factors = RANK * (4 * 2 * HIDDEN + 3 * (HIDDEN + INTERMEDIATE))
        held -= num_factors * itemsize / NUM_TOKENS
    shape = LayerShape(
        num_layers=1, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, attention_size=HIDDEN,
        key_value_size=HIDDEN, num_heads=HEADS,
    )  # fmt: skip
    kept = Kept(
        itemsize=itemsize,
        state_itemsize=dtype.itemsize,
        is_compiled=False,
        gradient_checkpointing=False,
        trains_backbone=adapter.trains_backbone,
        num_inputs=6 * HIDDEN + INTERMEDIATE,
        num_low_rank=0 if adapter.trains_backbone else len(TARGETS) * RANK,
    )
    assert held == pytest.approx(layer_bytes(shape, kept), rel=0.02)


@pytest.mark.parametrize(
    ("more", "attention_size"), [({}, 12), ({"head_dim": 8}, 24)], ids=["plain", "head-size"]
)
def test_the_shape_is_read_from_a_config(more: dict[str, int], attention_size: int) -> None:
    config = Qwen2Config(
        hidden_size=12, intermediate_size=20, num_hidden_layers=5, num_attention_heads=3,
        num_key_value_heads=1, **more,
    )  # fmt: skip
    assert LayerShape.of(config) == LayerShape(
        num_layers=5, hidden_size=12, intermediate_size=20, attention_size=attention_size,
        key_value_size=attention_size // 3, num_heads=3,
    )  # fmt: skip
