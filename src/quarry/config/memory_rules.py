"""Check the keys that decide the memory of a training step: checkpointing and GradCache."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from quarry.config.world_size import zero_stage
from quarry.models.gradient_checkpointing import SELECTIVE

AUTO = "auto"


def memory_violations(config: DictConfig) -> Iterator[str]:
    """Yield what is wrong with the GradCache chunk size and with gradient checkpointing.

    Missing keys, as in configurations of earlier versions, count as null and false.
    """
    chunk = config.data.get("grad_cache_chunk_tokens")
    is_number = isinstance(chunk, int) and not isinstance(chunk, bool)
    if not (chunk is None or chunk == AUTO or (is_number and chunk >= 1)):
        yield (
            f"data.grad_cache_chunk_tokens={chunk}: no number of tokens in one forward pass (a "
            "integer of at least 1, null for no chunks, or auto for what fits the GPU). Fix: "
            "data.grad_cache_chunk_tokens=auto"
        )
    checkpointing = config.model.get("gradient_checkpointing", False)
    if not isinstance(checkpointing, bool) and checkpointing not in (AUTO, SELECTIVE):
        yield (
            f"model.gradient_checkpointing={checkpointing}: no such kind (true, false, selective, "
            "auto). Fix: model.gradient_checkpointing=auto"
        )
    elif checkpointing == SELECTIVE and config.model.get("compile") is False:
        yield (
            "model.gradient_checkpointing=selective: it is the compiler's work, and "
            "model.compile=false. Fix: model.gradient_checkpointing=true"
        )
    elif checkpointing == SELECTIVE and zero_stage(config) == 3:
        yield (
            "model.gradient_checkpointing=selective: it is the compiler's work, and under ZeRO 3 "
            "nothing is compiled. Fix: model.gradient_checkpointing=true, or another strategy"
        )
