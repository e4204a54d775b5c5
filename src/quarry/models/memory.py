"""What a model needs and what this machine has, told before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from transformers import AutoModel, PretrainedConfig

GRADIENT_BYTES = 4
ADAM_BYTES = 8
"""The two moments, in fp32, of each trained parameter."""

MASTER_BYTES = 4
"""Of each trained parameter, where an optimiser keeps its own copy in fp32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """How many processes share what a training run takes; 1: each has all, infinity: it lies
    elsewhere.

    Attributes:
        has_master: the optimiser has a copy of the weights.
    """

    weights: float = 1
    gradients: float = 1
    optimizer: float = 1
    has_master: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryNeed:
    """The least that a model takes: activations and batches come on top.

    Attributes:
        num_parameters: of the trunk, without a language-model head.
        num_bytes: weights, and where the trunk is trained gradients and optimiser, too; of one
            process.
    """

    num_parameters: int
    num_bytes: int


def memory_need(
    config: PretrainedConfig,
    *,
    dtype: torch.dtype,
    trains_trunk: bool,
    spread: Spread | None = None,
) -> MemoryNeed:
    """Counts the parameters of the trunk that `config` describes, without making them."""
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    spread = spread or Spread()
    bytes_each = dtype.itemsize / spread.weights
    if trains_trunk:
        states = ADAM_BYTES + (MASTER_BYTES if spread.has_master else 0)
        bytes_each += GRADIENT_BYTES / spread.gradients + states / spread.optimizer
    return MemoryNeed(num_parameters=num_parameters, num_bytes=int(num_parameters * bytes_each))


def available_memory(*, on_cpu: bool = False) -> tuple[int, str]:
    """Bytes that a model may take here, and where they are; `on_cpu`: even if there is a GPU."""
    if torch.cuda.is_available() and not on_cpu:
        free, _ = torch.cuda.mem_get_info()
        return free, torch.cuda.get_device_name()
    return psutil.virtual_memory().available, "this machine's memory"


def gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
