"""What a step takes: by hand for small shapes, and against what was measured on GPUs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from quarry.models.adapters.lora import LoRA
from quarry.models.memory import num_weights, outline
from quarry.planning.activations import Kept, LayerShape
from quarry.planning.published_shapes import published_config
from quarry.planning.step_memory import ContrastiveBatches, TrainingSetup, step_memory, unmeasured
from quarry.planning.zero_buffers import ZeroBuffers

GIB = 2**30
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

LAYERS = LayerShape(
    num_layers=2,
    hidden_size=4,
    intermediate_size=8,
    attention_size=4,
    key_value_size=4,
    num_heads=1,
)
FP32 = Kept(
    itemsize=4,
    state_itemsize=4,
    is_compiled=True,
    gradient_checkpointing=False,
    trains_backbone=True,
)


def contrast(**more: Any) -> ContrastiveBatches:
    """Four queries of 10 tokens with one passage each."""
    settings: dict[str, Any] = {
        "num_queries": 4, "num_passages_per_query": 1, "tokens_per_query": 10, "deviation": 0,
        "longest_text": 8, "num_batches": 1,
    }  # fmt: skip
    return ContrastiveBatches(**(settings | more))


def setup(**more: Any) -> TrainingSetup:
    settings: dict[str, Any] = {
        "layers": LAYERS, "embedding_dim": 4, "num_frozen": 0, "num_trained": 100, "num_linear": 80,
        "frozen_itemsize": 4, "trained_itemsize": 4, "kept": FP32, "grad_cache_chunk_tokens": None,
        "world_size": 1, "zero": None, "offloads_parameters": False,
        "offloads_optimizer": False, "contrast": contrast(),
    }  # fmt: skip
    return TrainingSetup(**(settings | more))


def test_one_process_by_hand() -> None:
    memory = step_memory(setup())
    assert (memory.weights, memory.gradients, memory.optimizer) == (400, 400, 800)
    # 40 tokens, 2 layers: 2 sums and 2 norms of 4, attention 4 of 4 and a number for its head, MLP
    # 3 of 8; the last norm's input of 4; 4 bytes each
    assert memory.activations == 40 * 4 * (2 * (2 * 4 + 2 * 4 + 4 * 4 + 1 + 3 * 8) + 4)
    assert memory.passing == int(40 * 1.9 * 8 * 4)
    assert memory.embeddings == 8 * 4 * 4 * 2  # texts, numbers, bytes, and gradients
    assert (memory.buffers, memory.host) == (0, 0)
    parts = (400, 400, 800, memory.activations, memory.passing, memory.embeddings)
    assert memory.total == sum(parts)


def test_similarities_count_where_they_are_more_than_a_layer_has_in_passing() -> None:
    many = contrast(num_queries=1000, tokens_per_query=0.001)
    assert step_memory(setup(contrast=many)).passing == 1000 * 1000 * 4
    beyond = contrast(num_queries=100_000, tokens_per_query=0.001)
    assert step_memory(setup(contrast=beyond)).passing <= 2**26 * 4


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimizer", "buffers"),
    [
        (1, 400, 400, 300, 2 * 10 * 4),
        (2, 400, 100, 300, 2 * 10 * 4),
        (3, 100, 100, 300, 10 * 4 + 50 * 4),
    ],
)
def test_shards_of_four_processes_by_hand(
    stage: int, weights: int, gradients: int, optimizer: int, buffers: int
) -> None:
    zero = ZeroBuffers(stage=stage, reduce_bucket_size=10, max_live_parameters=50)
    memory = step_memory(setup(world_size=4, zero=zero))
    assert (memory.weights, memory.gradients, memory.optimizer) == (weights, gradients, optimizer)
    assert memory.buffers == buffers
    whole = step_memory(setup(world_size=4, zero=zero, grad_cache_chunk_tokens=100))
    assert whole.gradients == 400, "with chunks they wait, whole"
    # 2 own texts and 4 gathered passages
    assert memory.embeddings == (2 + 4) * 4 * 4 * 2


def test_weights_in_half_precision_under_zero() -> None:
    zero = ZeroBuffers(stage=3, reduce_bucket_size=10, max_live_parameters=50)
    half = replace(FP32, itemsize=2, state_itemsize=2, is_compiled=False)
    memory = step_memory(setup(world_size=2, zero=zero, trained_itemsize=2, kept=half))
    assert (memory.weights, memory.gradients, memory.optimizer) == (100, 200, 600)


def test_what_is_offloaded_is_in_the_hosts_memory() -> None:
    zero = ZeroBuffers(stage=3, reduce_bucket_size=10, max_live_parameters=50)
    shards = setup(world_size=4, zero=zero)
    there = step_memory(replace(shards, offloads_parameters=True, offloads_optimizer=True))
    assert (there.weights, there.gradients, there.optimizer) == (0, 0, 0)
    assert there.host == 100 + 100 + 300
    assert there.total == step_memory(shards).total - there.host


def test_autocast_keeps_copies_of_trained_weights() -> None:
    half = replace(FP32, itemsize=2)
    plain, cast = step_memory(setup(kept=replace(half, itemsize=4))), step_memory(setup(kept=half))
    layer = 2 * 4 * 4 + 2 * (2 * 4 + 4 * 4 + 3 * 8) + 4
    assert cast.activations == 40 * (2 * layer + 4 * 4) + 80 * 2
    assert cast.activations < plain.activations
    lora = step_memory(setup(kept=replace(half, trains_backbone=False)))
    assert lora.activations == cast.activations - 80 * 2 + 100 * 2  # linear weights, those trained


def test_checkpointing_keeps_inputs_and_one_layer() -> None:
    full = step_memory(setup(kept=replace(FP32, gradient_checkpointing=True)))
    assert full.activations == 40 * 4 * (2 * 4 + 4)
    layer = 4 * (2 * 4 + 4 * 4 + 1 + 2 * 8)
    assert full.passing == int(40 * (4.1 * 8 * 4 + layer))


def test_chunks_bound_a_pass_but_no_text_is_cut() -> None:
    assert setup(grad_cache_chunk_tokens=20).tokens_per_pass == 20
    assert setup(grad_cache_chunk_tokens=20).is_cut
    assert setup(grad_cache_chunk_tokens=5).tokens_per_pass == 8
    assert setup(grad_cache_chunk_tokens=50).tokens_per_pass == 40
    assert not setup(grad_cache_chunk_tokens=50).is_cut


def test_the_largest_share() -> None:
    assert contrast().largest_share(1) == 40
    assert contrast().largest_share(3) == 20, "two queries of four"
    wide = contrast(deviation=3, num_batches=100)
    above = 3 * math.sqrt(4) * math.sqrt(2 * math.log(100))
    assert wide.largest_share(1) == math.ceil(40 + above)
    assert wide.largest_share(2) == math.ceil((40 + above) / 2)


def test_the_largest_share_where_queries_differ_in_passages() -> None:
    """The contrastive batch with the most passages counts, and a query that outweighs a share."""
    most = contrast(more_tokens_per_query=2.5, tokens_of_largest_group=21)
    assert most.largest_share(1) == 50
    assert most.largest_share(2) == 25
    assert most.largest_share(4) == 21, "13 a query, and one query of 21"
    wide = contrast(deviation=3, num_batches=100, more_tokens_per_query=2.5)
    alone = replace(wide, tokens_of_largest_group=40).largest_share(4)
    assert alone == math.ceil(40 + 3 * math.sqrt(4) * math.sqrt(2 * math.log(100)))
    assert wide.largest_share(1) == math.ceil(50 + 3 * math.sqrt(4) * math.sqrt(2 * math.log(100)))


def test_texts_of_a_fractional_mean_of_passages_are_rounded_up() -> None:
    uneven = contrast(num_passages_per_query=1.6)  # 6.4 passages
    assert step_memory(setup(contrast=uneven)).embeddings == 11 * 4 * 4 * 2
    many = contrast(num_queries=1000, num_passages_per_query=1.6, tokens_per_query=0.001)
    assert step_memory(setup(contrast=many)).passing == 1000 * 1600 * 4


def test_what_no_measurement_backs_is_named() -> None:
    lora = replace(FP32, itemsize=2, trains_backbone=False)
    zero3 = ZeroBuffers(stage=3, reduce_bucket_size=10, max_live_parameters=50)
    assert unmeasured(setup(kept=lora)) == ()
    assert unmeasured(setup()) == ("all weights are trained", "products in float32")
    assert unmeasured(setup(kept=lora, zero=zero3)) == ("LoRA under ZeRO 3",)
    eager = replace(lora, is_fp8=True, is_compiled=False)
    assert unmeasured(setup(kept=eager)) == ("fp8, not compiled",)


MEASURED = [
    # compiled, checkpointing, dropout, fp8, tokens, peak GiB
    (True, False, 0.0, False, 8_296, 49.06),
    (True, False, 0.0, False, 24_634, 118.14),
    (True, False, 0.0, True, 24_634, 118.94),
    (True, False, 0.1, False, 8_296, 59.09),
    (True, "selective", 0.0, False, 24_634, 86.42),
    (True, "selective", 0.1, False, 24_634, 86.42),
    (True, "selective", 0.1, True, 24_634, 88.17),
    (True, True, 0.0, False, 24_634, 24.87),
    (True, True, 0.1, False, 24_634, 25.53),
    (True, True, 0.1, True, 24_634, 29.18),
    (False, False, 0.1, False, 8_296, 60.30),
    (False, True, 0.1, False, 8_296, 17.67),
]
"""One forward and backward pass of a 7B with LoRA (r 32, seven projections) in bf16 on an H200,
torch 2.11, before the optimizer has states (bench/step_modes.py)."""

RECIPE = [
    # fp8, checkpointing, chunk, peak GiB
    (False, "selective", 38_400, 127.48),
    (True, "selective", 37_632, 127.93),
    (False, True, None, 34.36),
    (False, True, 15_872, 22.04),
    (False, "selective", 19_968, 73.32),
]
"""`experiment=sft_msmarco` as configured (docs/performance.md): what `auto` chose on cards of 139,
40, 24 and 80 GiB. Mean and deviation of a query's tokens are those of its training file."""


TOLERANCE = 0.02


@pytest.mark.parametrize(
    ("is_compiled", "checkpointing", "dropout", "is_fp8", "num_tokens", "gib"), MEASURED
)
def test_the_estimate_is_what_was_measured(
    is_compiled: bool,
    checkpointing: bool | str,
    dropout: float,
    is_fp8: bool,
    num_tokens: int,
    gib: float,
) -> None:
    config = published_config("Qwen/Qwen2.5-7B")
    assert config is not None
    backbone = outline(config)
    part = LoRA(r=32, alpha=64, dropout=dropout, target_modules=PROJECTIONS).trained_part(backbone)
    estimated = step_memory(
        setup(
            layers=LayerShape.of(config),
            num_frozen=num_weights(backbone),
            num_trained=part.num_parameters,
            frozen_itemsize=2,
            kept=Kept(
                itemsize=2,
                state_itemsize=2,
                is_compiled=is_compiled,
                gradient_checkpointing=checkpointing,
                trains_backbone=False,
                num_inputs=part.num_inputs,
                num_low_rank=part.num_low_rank,
                has_dropout=dropout > 0,
                is_fp8=is_fp8,
            ),
            contrast=contrast(num_queries=1, tokens_per_query=num_tokens, longest_text=155),
        )
    )
    total = (estimated.total - estimated.optimizer) / GIB
    print(f"{total:.2f} GiB, measured {gib}")
    assert total == pytest.approx(gib, rel=TOLERANCE)


@pytest.mark.parametrize(("is_fp8", "checkpointing", "chunk", "gib"), RECIPE)
def test_the_plan_of_the_recipe_is_what_was_measured(
    is_fp8: bool, checkpointing: bool | str, chunk: int | None, gib: float
) -> None:
    config = published_config("Qwen/Qwen2.5-7B")
    assert config is not None
    backbone = outline(config)
    part = LoRA(r=32, alpha=64, dropout=0.1, target_modules=PROJECTIONS).trained_part(backbone)
    kept = Kept(
        itemsize=2, state_itemsize=2, is_compiled=True, gradient_checkpointing=checkpointing,
        trains_backbone=False, num_inputs=part.num_inputs, num_low_rank=part.num_low_rank,
        has_dropout=True, is_fp8=is_fp8,
    )  # fmt: skip
    estimated = step_memory(
        setup(
            layers=LayerShape.of(config), num_frozen=num_weights(backbone),
            num_trained=part.num_parameters, frozen_itemsize=2, kept=kept,
            grad_cache_chunk_tokens=chunk,
            contrast=contrast(
                num_queries=32, num_passages_per_query=16, tokens_per_query=1304, deviation=110,
                longest_text=156, num_batches=16,
            ),
        )
    )  # fmt: skip
    assert estimated.total / GIB == pytest.approx(gib, rel=0.05)
