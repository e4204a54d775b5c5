"""DeepSpeed ZeRO as a Lightning strategy: optimiser, gradients, weights in shards (1910.02054)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
from pytorch_lightning.plugins.precision import DeepSpeedPrecision, Precision
from pytorch_lightning.strategies import DeepSpeedStrategy, Strategy
from torch import nn

from quarry.distributed import world

BF16_WEIGHTS = "bf16-true"
BF16_AUTOCAST = "bf16-mixed"


class ZeroPrecision(DeepSpeedPrecision):
    """Lightning's precision plugin for DeepSpeed; autocast is done here, and batches are ints.

    Args:
        precision: of the trainer.
        device_type: where it computes, asked for at each pass.
    """

    def __init__(self, precision: Any, *, device_type: Callable[[], str]) -> None:
        super().__init__(precision)
        self._device_type = device_type

    def convert_input(self, data: Any) -> Any:
        return data

    def forward_context(self) -> AbstractContextManager[None]:
        return cast(
            AbstractContextManager[None],
            torch.autocast(
                self._device_type(),
                dtype=torch.bfloat16,
                enabled=self.precision == BF16_AUTOCAST,
            ),
        )


class ZeroStrategy(DeepSpeedStrategy):
    """Lightning's DeepSpeed strategy, with accumulation left to Lightning, on CPUs, too.

    - Gradients are accumulated by Lightning's rules: Lightning and DeepSpeed would otherwise each
      divide the loss by the number of contrast sets in an update, and clipping would come too late.
    - `trainer.precision=bf16-mixed` means what it means in one process: weights in their own
      dtype, products in bfloat16 by autocast. With `bf16-true` the weights are bfloat16 and the
      optimiser's shards hold them in float32.
    - On CPUs processes talk through gloo. Lightning's class refuses them, wants device indices,
      and DeepSpeed would compile its own reduction: none of it is needed.
    - Frozen weights are left out of checkpoints.

    Args:
        stage: 1: optimiser states in shards; 2: gradients, too; 3: weights, too.
        reduce_bucket_size: gradient elements in one reduction.
        allgather_bucket_size: elements of updated weights in one gather (stages 1 and 2).
        overlap_comm: reduce gradients while the backward pass goes on.
        contiguous_gradients: copy gradients to one buffer as they come.
        prefetch_bucket_size: elements fetched ahead of their layer (stage 3).
        param_persistence_threshold: tensors of fewer elements stay whole everywhere (stage 3).
        max_live_parameters: elements that are whole at a time (stage 3).
        offload_optimizer: optimiser states live, and are updated, in the host's memory.
        offload_parameters: weights live in the host's memory (stage 3).
        timeout_s: how long a process waits for another: longer than a search of rank 0.
    """

    def __init__(
        self,
        *,
        stage: int,
        reduce_bucket_size: int,
        allgather_bucket_size: int = 500_000_000,
        overlap_comm: bool = True,
        contiguous_gradients: bool = True,
        prefetch_bucket_size: int = 50_000_000,
        param_persistence_threshold: int = 100_000,
        max_live_parameters: int = 1_000_000_000,
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        timeout_s: float = 7200,
    ) -> None:
        assert stage in (1, 2, 3)
        zero: dict[str, Any] = {
            "stage": stage,
            "reduce_bucket_size": reduce_bucket_size,
            "overlap_comm": overlap_comm,
            "contiguous_gradients": contiguous_gradients,
        }
        if stage < 3:
            zero |= {"allgather_bucket_size": allgather_bucket_size, "reduce_scatter": True}
        else:
            zero |= {
                "stage3_prefetch_bucket_size": prefetch_bucket_size,
                "stage3_param_persistence_threshold": param_persistence_threshold,
                "stage3_max_live_parameters": max_live_parameters,
            }
        if offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        if offload_parameters:
            zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        super().__init__(
            config={
                "train_micro_batch_size_per_gpu": 1,  # for DeepSpeed's own log lines only
                "zero_allow_untested_optimizer": True,
                "zero_optimization": zero,
            },
            exclude_frozen_parameters=True,
            process_group_backend=world.backend(),
            timeout=timedelta(seconds=timeout_s),
        )
        self.stage = stage
        self.offload_optimizer = offload_optimizer
        self.offload_parameters = offload_parameters

    @property
    def precision_plugin(self) -> Precision:
        return super().precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        if isinstance(plugin, DeepSpeedPrecision):
            plugin = ZeroPrecision(plugin.precision, device_type=lambda: self.root_device.type)
        self._precision_plugin = plugin

    @property
    def handles_gradient_accumulation(self) -> bool:
        """No: Lightning steps once an update."""
        return False

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Around a contrast set after which no update comes."""
        engine = self.deepspeed_engine
        engine.set_gradient_accumulation_boundary(False)
        try:
            yield
        finally:
            engine.set_gradient_accumulation_boundary(True)

    @property
    def root_device(self) -> torch.device:
        device = super().root_device
        return torch.device("cpu", 0) if device.type == "cpu" else device  # DeepSpeed reads .index

    def setup_environment(self) -> None:
        if self.root_device.type == "cpu":
            super(DeepSpeedStrategy, self).setup_environment()  # without the check for CUDA
        else:
            super().setup_environment()

    def setup_distributed(self) -> None:
        if self.root_device.type != "cpu":
            super().setup_distributed()
            return
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @contextmanager
    def loading_in_shards(self, dtype: torch.dtype) -> Iterator[None]:
        """Inside, transformers reads weights of that dtype straight into shards (stage 3).

        Lightning's own place for building a model, `configure_model`, would do worse: what peft
        makes there has random values of its own, which the shards then lose without a word.
        """
        from transformers.integrations import HfDeepSpeedConfig

        self._init_config_if_needed()
        assert isinstance(self.config, dict)
        alive = HfDeepSpeedConfig(self.config | {"bf16": {"enabled": dtype == torch.bfloat16}})
        try:
            yield
        finally:
            del alive  # a later from_pretrained, on one process, is no business of the others

    def _format_config(self) -> None:
        assert isinstance(self.config, dict)
        assert self.lightning_module is not None
        trainer = self.lightning_module.trainer
        self.config["gradient_accumulation_steps"] = 1
        self.config["gradient_clipping"] = float(trainer.gradient_clip_val or 0.0)
        if self.precision_plugin.precision == BF16_WEIGHTS:
            # a gradient that is no number skips the update, as it does in the other precisions
            self.config["bf16"] = {"enabled": True, "check_grad_overflow": True}
            self.config["data_types"] = {"grad_accum_dtype": "fp32"}


def sharding_of(
    strategy: Strategy,
) -> Callable[[torch.dtype], AbstractContextManager[None]] | None:
    """What weights are loaded in, given their dtype, where ZeRO 3 puts them into shards."""
    if isinstance(strategy, ZeroStrategy) and strategy.stage == 3:
        return strategy.loading_in_shards
    return None


def is_sharded(model: nn.Module) -> bool:
    """Whether ZeRO 3 keeps the model's weights in shards."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())
