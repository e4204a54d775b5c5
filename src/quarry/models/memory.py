"""Estimate the memory of a model's weights, gradients and optimizer states before loading it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from quarry.errors import UserError
from quarry.models.adapters.base import NOTHING, TrainedPart
from quarry.models.remedies import CannotLoadError

NUM_MOMENTS = 2
"""Adam's moments of each trained parameter, in the parameter's dtype."""

FP32_BYTES = 4
"""ZeRO's optimizer holds weights, gradients and moments in fp32, whatever the weights' dtype."""


_MISFITS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What architectures raise on values that they cannot be built with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Number of ranks over which each kind of training state is sharded.

    1: every rank holds all of it; infinity: it is offloaded from the GPU.

    Attributes:
        has_master: whether the optimizer holds its own fp32 copy of the weights.
    """

    weights: float = 1
    gradients: float = 1
    optimizer: float = 1
    has_master: bool = False

    @classmethod
    def of_zero(
        cls,
        *,
        stage: int,
        world_size: int,
        is_chunked: bool,
        offloads_parameters: bool = False,
        offloads_optimizer: bool = False,
    ) -> Spread:
        """Return the sharding of ZeRO's stages 1 to 3; stage 0: none, as under DDP.

        Args:
            is_chunked: every rank holds full gradients until the last GradCache chunk.
        """
        if stage == 0:
            return cls()
        optimizer = math.inf if offloads_optimizer else world_size
        has_full_gradients = is_chunked or (stage == 1 and not offloads_optimizer)
        return cls(
            weights=math.inf if offloads_parameters else world_size if stage == 3 else 1,
            gradients=1 if has_full_gradients else optimizer,  # they go to the optimizer's shards
            optimizer=optimizer,
            has_master=True,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StateBytes:
    """Memory of one rank for weights, gradients and optimizer states, in bytes."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer


def state_bytes(
    *,
    num_frozen: int,
    num_trained: int,
    frozen_itemsize: int,
    trained_itemsize: int,
    spread: Spread,
) -> StateBytes:
    """Return the bytes of weights, gradients and AdamW's states on one rank.

    Args:
        num_frozen, num_trained: numbers of parameters.
        frozen_itemsize, trained_itemsize: bytes of one parameter.
        spread: how the states are sharded over ranks.
    """
    weights = num_frozen * frozen_itemsize + num_trained * trained_itemsize
    if spread.has_master:
        gradient, states = FP32_BYTES, (NUM_MOMENTS + 1) * FP32_BYTES
    else:
        gradient, states = trained_itemsize, NUM_MOMENTS * trained_itemsize
    return StateBytes(
        weights=int(weights / spread.weights),
        gradients=int(num_trained * gradient / spread.gradients),
        optimizer=int(num_trained * states / spread.optimizer),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryNeed:
    """Minimum memory of a model; activations and batches come on top.

    Attributes:
        num_parameters: parameters of the backbone, without a language-model head.
        states: memory of one rank.
    """

    num_parameters: int
    states: StateBytes

    @property
    def num_bytes(self) -> int:
        return self.states.total


def memory_need(
    config: PretrainedConfig,
    *,
    dtype: torch.dtype,
    trained_part: Callable[[PreTrainedModel], TrainedPart] | None = None,
    spread: Spread | None = None,
) -> MemoryNeed:
    """Compute the memory of the backbone that `config` describes, without allocating it.

    Args:
        trained_part: returns the part of a backbone that is trained; None: nothing is.
        spread: how the states are sharded over ranks; None: not at all.
    """
    backbone = outline(config)
    num_parameters = num_weights(backbone)
    part = NOTHING if trained_part is None else trained_part(backbone)
    states = state_bytes(
        num_frozen=num_parameters - (0 if part.is_beside else part.num_parameters),
        num_trained=part.num_parameters,
        frozen_itemsize=dtype.itemsize,
        trained_itemsize=FP32_BYTES if part.is_beside else dtype.itemsize,
        spread=spread or Spread(),
    )
    return MemoryNeed(num_parameters=num_parameters, states=states)


def check_fits(
    need: MemoryNeed,
    source: str,
    *,
    dtype: torch.dtype,
    on_cpu: bool,
    remedies: Callable[..., dict[str, str]],
) -> None:
    """Refuse a model that does not fit in this machine's memory.

    Args:
        source: where the model comes from; with `dtype` for the message.
        on_cpu: see `available_memory`.
        remedies: called with `share=`, available memory divided by needed memory; returns
            overrides that would run.

    Raises:
        CannotLoadError: it does not fit.
    """
    available, place = available_memory(on_cpu=on_cpu)
    if need.num_bytes <= available:
        return
    is_trained = need.states.optimizer > 0
    what = "weights, gradients and optimizer" if is_trained else "the weights alone"
    raise CannotLoadError(
        f"{source} ({need.num_parameters / 1e9:.2f}e9 parameters) does not fit: {what} take "
        f"{gib(need.num_bytes)} in {str(dtype).removeprefix('torch.')}, and {place} has "
        f"{gib(available)} free.",
        remedies=remedies(share=available / need.num_bytes),
    )


def outline(config: PretrainedConfig) -> PreTrainedModel:
    """Build the backbone on the meta device: modules and shapes without memory.

    Raises:
        UserError: the values in config.json do not fit together.
    """
    try:
        with torch.device("meta"):
            backbone: PreTrainedModel = AutoModel.from_config(config)
    except _MISFITS as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"The config.json of {config.name_or_path!r}: no model can be built of its sizes and "
            f"names ({reason}). Fix: restore the file"
        ) from error
    return backbone


def num_weights(module: torch.nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def available_memory(*, on_cpu: bool = False) -> tuple[int, str]:
    """Return the available bytes and the name of the device that has them.

    Args:
        on_cpu: use the host's memory, even if there is a GPU.
    """
    if torch.cuda.is_available() and not on_cpu:
        return free_device_bytes(), torch.cuda.get_device_name()
    return psutil.virtual_memory().available, "this machine's memory"


def free_device_bytes(device: torch.device | None = None) -> int:
    """Return the bytes that this process may still allocate on a GPU, 0 or more.

    Memory of other processes is not free, and `torch.cuda.set_per_process_memory_fraction` is a
    limit.

    Args:
        device: a CUDA device; None: the current one.
    """
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    unused = torch.cuda.memory_reserved(device) - allocated
    allowed = int(torch.cuda.get_per_process_memory_fraction(device) * total) - allocated
    return max(0, int(min(free + unused, allowed)))


def gib(num_bytes: float) -> str:
    """Format a number of bytes in GiB with one decimal."""
    return f"{num_bytes / 2**30:.1f} GiB"
