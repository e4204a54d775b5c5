"""Derive dtype, optimizer and memory of a training run from its strategy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer

from quarry.config.instantiate import build
from quarry.config.memory_rules import AUTO
from quarry.config.world_size import world_size, zero_stage
from quarry.distributed.settings import BF16_WEIGHTS
from quarry.models.memory import Spread
from quarry.training.optim import offloaded_adamw


def settle_dtype(config: DictConfig) -> None:
    """Set `model.dtype` to bfloat16 where ZeRO casts to it, to avoid loading in float32 first."""
    has_bf16_weights = zero_stage(config) > 0 and config.trainer.precision == BF16_WEIGHTS
    if has_bf16_weights and config.model.get("dtype") == "auto":
        config.model.dtype = "bfloat16"


def build_optimizer(config: DictConfig) -> Callable[[list[dict[str, Any]]], Optimizer]:
    """Return the configured optimizer's constructor.

    Where optimizer states are offloaded to the host, that is DeepSpeed's CPU AdamW with the same
    settings.
    """
    optimizer: partial[Optimizer] = build(config.optimizer)
    if zero_stage(config) and config.trainer.strategy.get("offload_optimizer", False):
        return partial(offloaded_adamw, **optimizer.keywords)
    return optimizer


def planned_spread(config: DictConfig) -> Spread:
    """Return how the run's weights, gradients and optimizer states are divided over ranks."""
    strategy = config.trainer.get("strategy")
    is_zero = zero_stage(config) > 0
    chunk = OmegaConf.select(config, "data.grad_cache_chunk_tokens")
    return Spread.of_zero(
        stage=zero_stage(config),
        world_size=world_size(config),
        is_chunked=chunk not in (None, AUTO),
        offloads_parameters=is_zero and strategy.get("offload_parameters", False),
        offloads_optimizer=is_zero and strategy.get("offload_optimizer", False),
    )
