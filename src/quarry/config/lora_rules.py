"""Check rank and dropout of a LoRA adapter."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf


def lora_violations(config: DictConfig) -> Iterator[str]:
    """Yield what is wrong with rank and dropout of `model.adapter`, where it has them."""
    rank = OmegaConf.select(config, "model.adapter.r")
    if rank is not None and rank < 1:
        yield f"model.adapter.r={rank}: no rank (at least 1). Fix: model.adapter.r=16"
    dropout = OmegaConf.select(config, "model.adapter.dropout")
    if dropout is not None and not 0 <= dropout < 1:
        yield (
            f"model.adapter.dropout={dropout}: no share of the entries (at least 0, below 1). "
            "Fix: model.adapter.dropout=0.1"
        )
