"""What a model needs and what this machine has, told before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch
from transformers import AutoModel, PretrainedConfig

ADAM_BYTES = 12
"""Gradient and the two moments of AdamW, in fp32, for each trained parameter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryNeed:
    """The least that a model takes: activations and batches come on top.

    Attributes:
        num_parameters: of the trunk, without a language-model head.
        num_bytes: weights, and where the trunk is trained gradients and optimiser, too.
    """

    num_parameters: int
    num_bytes: int


def memory_need(config: PretrainedConfig, *, dtype: torch.dtype, trains_trunk: bool) -> MemoryNeed:
    """Counts the parameters of the trunk that `config` describes, without making them."""
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    bytes_each = dtype.itemsize + (ADAM_BYTES if trains_trunk else 0)
    return MemoryNeed(num_parameters=num_parameters, num_bytes=num_parameters * bytes_each)


def available_memory(*, on_cpu: bool = False) -> tuple[int, str]:
    """Bytes that a model may take here, and where they are; `on_cpu`: even if there is a GPU."""
    if torch.cuda.is_available() and not on_cpu:
        free, _ = torch.cuda.mem_get_info()
        return free, torch.cuda.get_device_name()
    return psutil.virtual_memory().available, "this machine's memory"


def gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
