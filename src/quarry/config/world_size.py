"""Read world size and ZeRO stage from a configuration, and check devices and strategy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig

from quarry.distributed.launch import launched_by
from quarry.distributed.settings import BF16_WEIGHTS, num_ranks_of
from quarry.runtime.devices import has_gpu

PRECISIONS = ("32-true", "bf16-mixed")
"""Lightning's precisions that mean the same for any world size."""

GPU_ACCELERATORS = ("gpu", "cuda")

MAX_RANKS_OF_A_CORE = 4

OFFLOADABLE = "torch.optim.AdamW"

ZERO = "quarry.distributed.zero.ZeroStrategy"
"""By name: the class would import Lightning, which a refusal does not need."""


def num_devices(config: DictConfig) -> int | None:
    """Return the number of ranks on each node; None if `trainer.devices` does not state it."""
    return num_ranks_of(config.trainer.devices)


def world_size(config: DictConfig) -> int:
    """Return the world size: the ranks on all nodes."""
    return (num_devices(config) or 1) * int(config.trainer.get("num_nodes", 1))


def zero_stage(config: DictConfig) -> int:
    """Return the ZeRO stage, 1 to 3; 0 for other strategies."""
    strategy = config.trainer.get("strategy")
    if not isinstance(strategy, DictConfig) or strategy.get("_target_") != ZERO:
        return 0
    return int(strategy.stage)


def foreign_checkpoint(config: DictConfig, checkpoint: Path) -> str | None:
    """Return why a checkpoint is none that the run's own strategy writes; None: it may be one.

    Reading ZeRO's shards runs what is pickled in them, so a run without ZeRO has none to read.
    """
    if checkpoint.is_dir() == (zero_stage(config) > 0):
        return None
    kind = "a folder of ZeRO's shards" if checkpoint.is_dir() else "one file"
    return (
        f"{checkpoint} is {kind}, which trainer.strategy of this run does not write: it was "
        "changed since. Set it back, or start a new run"
    )


def device_violations(config: DictConfig, *, is_planned: bool = False) -> Iterator[str]:
    """Yield missing devices, and a launcher's world size that differs from the configured one.

    Args:
        is_planned: the run is for a machine that need not be this one.
    """
    devices, num_nodes = num_devices(config), config.trainer.get("num_nodes", 1)
    if devices is None or devices < 1:
        yield (
            f"trainer.devices={config.trainer.devices}: not a number of devices (1 or more). "
            "Fix: trainer.devices=1"
        )
        return
    if num_nodes < 1:
        yield (
            f"trainer.num_nodes={num_nodes}: not a number of nodes (1 or more). "
            "Fix: trainer.num_nodes=1"
        )
        return
    if is_planned:
        return
    accelerator = config.trainer.accelerator
    if accelerator in GPU_ACCELERATORS or (accelerator == "auto" and torch.cuda.is_available()):
        yield from _missing_gpus(config)
    elif accelerator in ("auto", "cpu"):
        yield from _devices_of_a_cpu(config.trainer.devices)
    launcher, num_launched = launched_by() or (None, None)
    if launcher is not None and num_launched != world_size(config):
        yield (
            f"trainer.devices={devices}: with trainer.num_nodes={num_nodes} the world size is "
            f"{world_size(config)}, and {launcher} started {num_launched} ranks. Fix: set "
            "trainer.devices to its ranks on a node, and trainer.num_nodes to its nodes"
        )


def _missing_gpus(config: DictConfig) -> Iterator[str]:
    devices, found = config.trainer.devices, int(torch.cuda.device_count())
    if not torch.cuda.is_available():
        yield (
            f"trainer.accelerator={config.trainer.accelerator}: this machine has no GPU. Fix: "
            "trainer.accelerator=auto"
        )
    elif isinstance(devices, ListConfig):
        if missing := [index for index in devices if not 0 <= int(index) < found]:
            yield (
                f"trainer.devices={devices}: this machine has no GPU {missing} (0 to {found - 1}). "
                f"Fix: trainer.devices={found}"
            )
    elif (num_devices(config) or 1) > found:
        yield f"trainer.devices={devices}: this machine has {found}. Fix: trainer.devices={found}"


def _devices_of_a_cpu(devices: Any) -> Iterator[str]:
    if isinstance(devices, ListConfig) or str(devices) == "-1":
        yield (
            f"trainer.devices={devices} : these are GPUs, and this run has none (a number of "
            "ranks). Fix: trainer.devices=1"
        )
        return
    num_ranks, num_cores = num_ranks_of(devices) or 1, _num_cores()
    if num_ranks > MAX_RANKS_OF_A_CORE * num_cores:
        yield (
            f"trainer.devices={devices}: {num_ranks} ranks, each with a model of its own, would "
            f"share {num_cores} cores (at most {MAX_RANKS_OF_A_CORE} ranks a core). Fix: "
            f"trainer.devices={num_cores}"
        )


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def strategy_violations(config: DictConfig) -> Iterator[str]:
    """Yield settings that the strategy does not support."""
    stage, precision = zero_stage(config), config.trainer.precision
    if stage == 0:
        if str(precision).endswith("-true") and precision != "32-true":
            yield (
                f"trainer.precision={precision}: needs strategy=zero1, zero2 or zero3. Fix: "
                "trainer.precision=bf16-mixed, with model.dtype=bfloat16 for weights in bfloat16"
            )
        return
    if precision not in (*PRECISIONS, BF16_WEIGHTS):
        yield (
            f"trainer.precision={precision}: not supported under ZeRO "
            f"({', '.join((*PRECISIONS, BF16_WEIGHTS))}). Fix: trainer.precision=bf16-mixed"
        )
    if config.model.get("linear_precision") == "fp8":
        yield (
            "model.linear_precision=fp8: not supported under ZeRO, which casts all weights. Fix: "
            "strategy=ddp"
        )
    dtype = config.model.get("dtype")
    if precision == BF16_WEIGHTS and dtype not in (None, "auto", "bfloat16", "bf16"):
        yield (
            f"model.dtype={dtype}: has no effect with trainer.precision={BF16_WEIGHTS}. Fix: "
            "model.dtype=bfloat16, or trainer.precision=bf16-mixed"
        )
    if stage == 3 and config.model.get("compile") is True:
        yield (
            "model.compile=true: not supported with strategy=zero3, which gathers weights in "
            "hooks. Fix: model.compile=false"
        )
    yield from _offload_violations(config, stage)


def _offload_violations(config: DictConfig, stage: int) -> Iterator[str]:
    strategy = config.trainer.strategy
    offloads_optimizer = strategy.get("offload_optimizer", False)
    offloads_parameters = strategy.get("offload_parameters", False)
    if not (offloads_optimizer or offloads_parameters):
        return
    if not has_gpu() or config.trainer.accelerator == "cpu":
        yield (
            f"trainer.strategy.offload_optimizer={offloads_optimizer}, "
            f"offload_parameters={offloads_parameters}: no effect without a GPU, whose memory they "
            "save. Fix: strategy=zero3"
        )
    if offloads_parameters and stage != 3:
        yield (
            "trainer.strategy.offload_parameters=true: needs ZeRO 3, which shards weights. "
            "Fix: strategy=zero3_offload"
        )
    if offloads_optimizer and "optimizer" in config:
        target = config.optimizer.get("_target_")
        if target != OFFLOADABLE:
            yield (
                f"trainer.strategy.offload_optimizer=true: {target} has no version for host "
                "memory. Fix: optimizer=adamw"
            )
