"""Plans for tests: a setup of numbers that can be followed by hand."""

from __future__ import annotations

from typing import Any

from quarry.planning.activations import Kept, LayerShape
from quarry.planning.step_memory import ContrastiveBatches, TrainingSetup

GIB = 2**30

LORA = Kept(
    itemsize=2, state_itemsize=2, is_compiled=True, gradient_checkpointing=False,
    trains_backbone=False,
    num_inputs=28 * (5 * 3584 + 3584 + 18944), num_low_rank=28 * 7 * 16,
)  # fmt: skip


def setup(**more: Any) -> TrainingSetup:
    """LoRA of a 7B on one GPU, 16 queries of 1,280 tokens with 15 hard negatives."""
    settings: dict[str, Any] = {
        "layers": LayerShape(
            num_layers=28, hidden_size=3584, intermediate_size=18944, attention_size=3584,
            key_value_size=512, num_heads=28,
        ),
        "embedding_dim": 3584, "num_frozen": 7_070_619_136, "num_trained": 40_370_176,
        "num_linear": 6_525_288_448,
        "frozen_itemsize": 2, "trained_itemsize": 4, "kept": LORA, "grad_cache_chunk_tokens": None,
        "world_size": 1, "zero": None, "offloads_parameters": False,
        "offloads_optimizer": False,
        "contrast": ContrastiveBatches(
            num_queries=16, num_passages_per_query=16, tokens_per_query=1280, deviation=0,
            longest_text=156, num_batches=0,
        ),
    }  # fmt: skip
    return TrainingSetup(**(settings | more))
