"""What a model needs and what this machine has, told before any weight is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from quarry.models.adapters.base import NOTHING, TrainedPart
from quarry.models.remedies import CannotLoadError

NUM_MOMENTS = 2
"""Of Adam: numbers of each trained parameter, in its own dtype."""

FP32_BYTES = 4
"""ZeRO's optimiser has weights, gradients and moments in fp32, whatever the weights are in."""


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

    @classmethod
    def of_zero(
        cls,
        *,
        stage: int,
        num_processes: int,
        is_chunked: bool,
        offloads_parameters: bool = False,
        offloads_optimizer: bool = False,
    ) -> Spread:
        """Of ZeRO's stages 1 to 3; stage 0: every process has all, as under DDP.

        Args:
            is_chunked: gradients wait, whole, for the last chunk of GradCache.
        """
        if stage == 0:
            return cls()
        optimizer = math.inf if offloads_optimizer else num_processes
        has_whole_gradients = is_chunked or (stage == 1 and not offloads_optimizer)
        return cls(
            weights=math.inf if offloads_parameters else num_processes if stage == 3 else 1,
            gradients=1 if has_whole_gradients else optimizer,  # they go to where it is
            optimizer=optimizer,
            has_master=True,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StateBytes:
    """What one process holds from its start to its end, in bytes."""

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
    """Weights, gradients and AdamW's states.

    Args:
        num_frozen, num_trained: parameters.
        frozen_itemsize, trained_itemsize: bytes of one.
        spread: over processes.
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
    """The least that a model takes: activations and batches come on top.

    Attributes:
        num_parameters: of the trunk, without a language-model head.
        states: of one process.
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
    """Counts the parameters of the trunk that `config` describes, without making them.

    Args:
        trained_part: what is trained of a trunk; None: nothing.
    """
    trunk = outline(config)
    num_parameters = num_weights(trunk)
    part = NOTHING if trained_part is None else trained_part(trunk)
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
    """Refuses a model that this machine's memory is too small for.

    Args:
        source: where it comes from; with `dtype` for the message.
        on_cpu: see `available_memory`.
        remedies: `share=...` of the memory that it needs is there -> what would run.

    Raises:
        CannotLoadError: it is too small.
    """
    available, place = available_memory(on_cpu=on_cpu)
    if need.num_bytes <= available:
        return
    is_trained = need.states.optimizer > 0
    what = "weights, gradients and optimiser" if is_trained else "the weights alone"
    raise CannotLoadError(
        f"{source} ({need.num_parameters / 1e9:.2f}e9 parameters) does not fit: {what} take "
        f"{gib(need.num_bytes)} in {str(dtype).removeprefix('torch.')}, and {place} has "
        f"{gib(available)} free.",
        remedies=remedies(share=available / need.num_bytes),
    )


def outline(config: PretrainedConfig) -> PreTrainedModel:
    """The trunk's modules with the shapes of their weights, and no memory behind them."""
    with torch.device("meta"):
        trunk: PreTrainedModel = AutoModel.from_config(config)
    return trunk


def num_weights(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def available_memory(*, on_cpu: bool = False) -> tuple[int, str]:
    """Bytes that a model may take here, and where they are; `on_cpu`: even if there is a GPU."""
    if torch.cuda.is_available() and not on_cpu:
        return free_device_bytes(), torch.cuda.get_device_name()
    return psutil.virtual_memory().available, "this machine's memory"


def free_device_bytes(device: torch.device | None = None) -> int:
    """Return the bytes that this process may yet take on a GPU, 0 or more.

    What others have there is not free, and `torch.cuda.set_per_process_memory_fraction` is a limit.

    Args:
        device: a CUDA device; None: the current one.
    """
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    unused = torch.cuda.memory_reserved(device) - allocated
    allowed = int(torch.cuda.get_per_process_memory_fraction(device) * total) - allocated
    return max(0, int(min(free + unused, allowed)))


def gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
