"""How many processes a configuration asks for, and what it says of their strategy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig

from quarry.distributed.data_parallel import num_ranks_of
from quarry.distributed.launch import launched_by
from quarry.distributed.zero import BF16_WEIGHTS, ZeroStrategy
from quarry.runtime.devices import has_gpu

PRECISIONS = ("32-true", "bf16-mixed")
"""Of Lightning's, those that mean the same in one process and in several."""

GPU_ACCELERATORS = ("gpu", "cuda")

OFFLOADABLE = "torch.optim.AdamW"


def num_devices(config: DictConfig) -> int | None:
    """Processes on each node; None: not a number that can be told."""
    return num_ranks_of(config.trainer.devices)


def world_size(config: DictConfig) -> int:
    """Processes of the whole run."""
    return (num_devices(config) or 1) * int(config.trainer.get("num_nodes", 1))


def zero_stage(config: DictConfig) -> int:
    """1, 2 or 3; 0 where the strategy is none of ZeRO's."""
    strategy = config.trainer.get("strategy")
    if not isinstance(strategy, DictConfig) or strategy.get("_target_") is None:
        return 0
    is_zero = get_object(strategy["_target_"]) is ZeroStrategy
    return int(strategy.stage) if is_zero else 0


def device_violations(config: DictConfig, *, is_planned: bool = False) -> Iterator[str]:
    """Devices that there are not, and launchers that started another number of processes.

    Args:
        is_planned: the run is for a machine that need not be this one.
    """
    devices, num_nodes = num_devices(config), config.trainer.get("num_nodes", 1)
    if devices is None or devices < 1:
        yield f"trainer.devices={config.trainer.devices} must be a number of devices, 1 or more"
        return
    if num_nodes < 1:
        yield f"trainer.num_nodes={num_nodes} must be a number of nodes, 1 or more"
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
            f"trainer.devices={devices} on {num_nodes} node(s) are {world_size(config)} "
            f"processes, and {launcher} started {num_launched}: let trainer.devices be its "
            "processes on a node, and trainer.num_nodes its nodes"
        )


def _missing_gpus(config: DictConfig) -> Iterator[str]:
    devices, found = config.trainer.devices, int(torch.cuda.device_count())
    if not torch.cuda.is_available():
        yield (
            f"trainer.accelerator={config.trainer.accelerator}: this machine has no GPU; set "
            "trainer.accelerator=auto"
        )
    elif isinstance(devices, ListConfig):
        if missing := [index for index in devices if not 0 <= int(index) < found]:
            yield f"trainer.devices={devices}: this machine has no GPU {missing}, of its {found}"
    elif (num_devices(config) or 1) > found:
        yield f"trainer.devices={devices}: this machine has {found}; set trainer.devices={found}"


def _devices_of_a_cpu(devices: Any) -> Iterator[str]:
    if isinstance(devices, ListConfig) or str(devices) == "-1":
        yield (
            f"trainer.devices={devices} are GPUs, and this run has none: set a number of "
            "processes, trainer.devices=1"
        )


def strategy_violations(config: DictConfig) -> Iterator[str]:
    """What several processes, or ZeRO, cannot do."""
    stage, precision = zero_stage(config), config.trainer.precision
    if stage == 0:
        if str(precision).endswith("-true") and precision != "32-true":
            yield (
                f"trainer.precision={precision} is for strategy=zero1, zero2 and zero3: set "
                "model.dtype=bfloat16 for weights in bfloat16, and trainer.precision=bf16-mixed"
            )
        return
    if precision not in (*PRECISIONS, BF16_WEIGHTS):
        yield (
            f"trainer.precision={precision} does not go with ZeRO: set one of "
            f"{', '.join((*PRECISIONS, BF16_WEIGHTS))}"
        )
    if config.model.get("linear_precision") == "fp8":
        yield (
            "model.linear_precision=fp8 does not go with ZeRO, which casts all weights: use "
            "strategy=ddp"
        )
    dtype = config.model.get("dtype")
    if precision == BF16_WEIGHTS and dtype not in (None, "auto", "bfloat16", "bf16"):
        yield (
            f"model.dtype={dtype} has no effect with trainer.precision={BF16_WEIGHTS}: set "
            "model.dtype=bfloat16, or trainer.precision=bf16-mixed"
        )
    if stage == 3 and config.model.get("compile") is True:
        yield "model.compile=true does not go with strategy=zero3, which fetches weights by hooks"
    yield from _offload_violations(config, stage)


def _offload_violations(config: DictConfig, stage: int) -> Iterator[str]:
    strategy = config.trainer.strategy
    offloads_optimizer = strategy.get("offload_optimizer", False)
    offloads_parameters = strategy.get("offload_parameters", False)
    if not (offloads_optimizer or offloads_parameters):
        return
    if not has_gpu() or config.trainer.accelerator == "cpu":
        yield (
            "trainer.strategy.offload_optimizer and offload_parameters have no effect without a "
            "GPU, whose memory they save: choose strategy=zero3"
        )
    if offloads_parameters and stage != 3:
        yield "trainer.strategy.offload_parameters needs strategy=zero3_offload: weights in shards"
    if offloads_optimizer and "optimizer" in config:
        target = config.optimizer.get("_target_")
        if target != OFFLOADABLE:
            yield (
                f"trainer.strategy.offload_optimizer needs optimizer=adamw, which has a version "
                f"for the host's memory; {target} has none"
            )
