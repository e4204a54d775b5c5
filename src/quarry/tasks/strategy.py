"""What follows from the strategy for other parts of a training run: dtype, optimiser, memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer

from quarry.config.instantiate import build
from quarry.config.processes import num_processes, zero_stage
from quarry.distributed.zero import BF16_WEIGHTS
from quarry.models.memory import Spread
from quarry.training.optim import offloaded_adamw


def settle_dtype(config: DictConfig) -> None:
    """Loads weights as bfloat16 where ZeRO keeps them so, instead of as float32 first."""
    has_bf16_weights = zero_stage(config) > 0 and config.trainer.precision == BF16_WEIGHTS
    if has_bf16_weights and config.model.get("dtype") == "auto":
        config.model.dtype = "bfloat16"


def build_optimizer(config: DictConfig) -> Callable[[list[dict[str, Any]]], Optimizer]:
    """The configured one; where its states live in the host's memory, DeepSpeed's AdamW for CPUs
    with the same settings."""
    optimizer: partial[Optimizer] = build(config.optimizer)
    if zero_stage(config) and config.trainer.strategy.get("offload_optimizer", False):
        return partial(offloaded_adamw, **optimizer.keywords)
    return optimizer


def planned_spread(config: DictConfig) -> Spread:
    """How many processes share the weights, gradients and optimiser states of the run."""
    stage, number = zero_stage(config), num_processes(config)
    if stage == 0:
        return Spread()
    strategy = config.trainer.strategy
    chunk = OmegaConf.select(config, "data.num_tokens_per_chunk")
    is_chunked = chunk is not None  # gradients wait for the last chunk
    return Spread(
        weights=_share(number if stage == 3 else 1, strategy.get("offload_parameters", False)),
        gradients=number if stage >= 2 and not is_chunked else 1,
        optimizer=_share(number, strategy.get("offload_optimizer", False)),
        has_master=True,
    )


def _share(number: int, is_offloaded: bool) -> float:
    return math.inf if is_offloaded else number
