"""Measure memory and rate of a training pass in each way of running it, on a random 7B.

    python bench/step_modes.py                                      (all, about seven minutes)
    python bench/step_modes.py --only selective_dropout,full_dropout --budget-s 400

A pass is forward and backward over packed texts of 20 to 135 tokens with LoRA (r 32, all seven
projections), without an optimizer. The constants in planning/activations.py and
planning/step_cost.py come from here: memory at the beginning of the backward pass, peak
memory, and seconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, PreTrainedModel

from quarry.data.packing import pack
from quarry.models.adapters.fast_lora import use_fast_lora
from quarry.models.adapters.lora import LoRA
from quarry.models.backbones.text_model import text_model
from quarry.models.bi_encoder import BiEncoder
from quarry.models.building import set_layer_modes
from quarry.models.fp8 import use_fp8
from quarry.models.gradient_checkpointing import SELECTIVE
from quarry.models.pooling.last_token import LastToken
from quarry.planning.published_shapes import published_config
from quarry.types import TokenBatch

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NUM_TOKENS = (2_048, 8_192, 24_576)
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Way:
    """The settings of a training pass."""

    dropout: float
    gradient_checkpointing: bool | str
    is_compiled: bool = True
    is_fp8: bool = False


WAYS = {
    "plain": Way(dropout=0.0, gradient_checkpointing=False),
    "plain_dropout": Way(dropout=0.1, gradient_checkpointing=False),
    "selective": Way(dropout=0.0, gradient_checkpointing=SELECTIVE),
    "selective_dropout": Way(dropout=0.1, gradient_checkpointing=SELECTIVE),
    "full": Way(dropout=0.0, gradient_checkpointing=True),
    "full_dropout": Way(dropout=0.1, gradient_checkpointing=True),
    "fp8_plain": Way(dropout=0.0, gradient_checkpointing=False, is_fp8=True),
    "fp8_selective_dropout": Way(dropout=0.1, gradient_checkpointing=SELECTIVE, is_fp8=True),
    "fp8_full_dropout": Way(dropout=0.1, gradient_checkpointing=True, is_fp8=True),
    "eager_dropout": Way(dropout=0.1, gradient_checkpointing=False, is_compiled=False),
    "eager_full_dropout": Way(dropout=0.1, gradient_checkpointing=True, is_compiled=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(WAYS), help="names, with commas between")
    parser.add_argument("--budget-s", type=float, default=3600, help="begin nothing after that")
    arguments = parser.parse_args()
    start = time.perf_counter()
    for name in arguments.only.split(","):
        if time.perf_counter() - start > arguments.budget_s:
            break
        rows = measured(WAYS[name])
        print(json.dumps({"name": name, **asdict(WAYS[name]), "passes": rows}), flush=True)
        gc.collect()
        torch.cuda.empty_cache()


def measured(way: Way) -> list[dict[str, Any]]:
    """Return a row for each number of tokens that fits."""
    torch._dynamo.reset()
    model = built(way)
    held = torch.cuda.memory_allocated()
    rows = []
    for number in (NUM_TOKENS[0], *NUM_TOKENS):  # the first one compiles
        tokens = batch(number)
        try:
            rows.append(timed(model, tokens, held=held))
        except torch.OutOfMemoryError:
            rows.append({"num_tokens": tokens.num_tokens, "out_of_memory": True})
        model.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
    return rows[1:]


def built(way: Way, *, name: str = "Qwen/Qwen2.5-7B", device: str = "cuda") -> BiEncoder:
    """Return the model as `build_bi_encoder` assembles it, with random weights."""
    adapter = LoRA(r=32, alpha=64, dropout=way.dropout, target_modules=TARGETS)
    backbone = adapter(random_backbone(name, device))
    for place, parameter in backbone.named_parameters():
        if "lora_" in place:
            parameter.data = parameter.data.float()
    if way.is_fp8:
        use_fp8(text_model(backbone), is_trained_through=True)
    use_fast_lora(backbone)
    model = BiEncoder(backbone=backbone, pooling=LastToken()).train()
    set_layer_modes(
        backbone,
        gradient_checkpointing=way.gradient_checkpointing,
        is_compiled=way.is_compiled,
    )
    return model


def random_backbone(name: str, device: str) -> PreTrainedModel:
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return AutoModel.from_config(published_config(name))
    finally:
        torch.set_default_dtype(before)


def batch(num_tokens: int) -> TokenBatch:
    random = np.random.default_rng(0)
    rows: list[NDArray[np.int64]] = []
    while sum(map(len, rows)) < num_tokens:
        rows.append(random.integers(0, 150_000, random.integers(20, 136)))
    return pack(rows).to("cuda")


def timed(model: BiEncoder, tokens: TokenBatch, *, held: int) -> dict[str, Any]:
    """Return memory and rates of a pass, from the fastest of three."""
    kept = 0

    def forward() -> torch.Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            embeddings: torch.Tensor = model(tokens)
            return embeddings

    def step() -> None:
        nonlocal kept
        loss = forward().square().sum()
        kept = torch.cuda.memory_allocated() - held
        loss.backward()

    step()
    torch.cuda.reset_peak_memory_stats()
    seconds = min(clocked(step) for _ in range(3))
    peak = torch.cuda.max_memory_allocated()
    with torch.no_grad():
        forward()
        forward_s = min(clocked(forward) for _ in range(2))
    return {
        "num_tokens": tokens.num_tokens,
        "tokens_per_s": round(tokens.num_tokens / seconds),
        "forward_tokens_per_s": round(tokens.num_tokens / forward_s),
        "kept_gib": round(kept / GIB, 2),
        "peak_gib": round(peak / GIB, 2),
    }


def clocked(action: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    action()
    torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
