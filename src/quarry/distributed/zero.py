"""DeepSpeed ZeRO as a Lightning strategy: shards optimizer states, gradients and weights."""

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
from quarry.distributed.settings import BF16_AUTOCAST, BF16_WEIGHTS
from quarry.errors import UserError


class ZeroPrecision(DeepSpeedPrecision):
    """Lightning's DeepSpeed precision plugin with its own autocast; it leaves batches unchanged.

    Args:
        precision: of the trainer.
        device_type: returns the type of the device; called for each forward pass.
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
    """Lightning's DeepSpeed strategy with gradient accumulation by Lightning; also runs on CPUs.

    ZeRO: Rajbhandari et al. 2019, arXiv 1910.02054.

    - Lightning accumulates gradients. Otherwise Lightning and DeepSpeed would both divide the loss
      by the number of contrastive batches in an optimizer step, and clipping would come too late.
    - `trainer.precision=bf16-mixed` means the same as on one rank: weights in their own dtype,
      products in bfloat16 by autocast. With `bf16-true` the weights are bfloat16, and the
      optimizer's shards hold them in float32.
    - On CPUs, ranks communicate by gloo. Lightning's class refuses CPUs and wants device indices,
      and DeepSpeed would compile its own reduction; none of that is needed.
    - Checkpoints leave out frozen weights.

    Args:
        stage: 1: shard optimizer states; 2: also gradients; 3: also weights.
        reduce_bucket_size: gradient elements in one reduction.
        allgather_bucket_size: elements of updated weights in one gather (stages 1 and 2).
        overlap_comm: reduce gradients while the backward pass continues.
        contiguous_gradients: copy gradients to one buffer as they come.
        prefetch_bucket_size: elements fetched ahead of their layer (stage 3).
        param_persistence_threshold: tensors of fewer elements are not sharded (stage 3).
        max_live_parameters: gathered elements at a time (stage 3).
        offload_optimizer: keep and update optimizer states in host memory.
        offload_parameters: keep weights in host memory (stage 3).
        timeout_s: how long a rank waits for another; must exceed a search on rank 0.
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
        """False: Lightning makes DeepSpeed step once per optimizer step."""
        return False

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Mark a contrastive batch that no optimizer step follows."""
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
        """Let transformers load weights of this dtype directly into shards (stage 3).

        Lightning's own hook for building a model, `configure_model`, does not work here: peft
        initializes new weights randomly inside it, and the shards silently lose these values.
        """
        from transformers.integrations import HfDeepSpeedConfig

        self._init_config_if_needed()
        assert isinstance(self.config, dict)
        alive = HfDeepSpeedConfig(self.config | {"bf16": {"enabled": dtype == torch.bfloat16}})
        try:
            yield
        finally:
            del alive  # later from_pretrained calls, on one rank, must not shard

    def _format_config(self) -> None:
        assert isinstance(self.config, dict)
        assert self.lightning_module is not None
        trainer = self.lightning_module.trainer
        self.config["gradient_accumulation_steps"] = 1
        self.config["gradient_clipping"] = float(trainer.gradient_clip_val or 0.0)
        if self.precision_plugin.precision == BF16_WEIGHTS:
            # a gradient that is not finite skips the optimizer step, as in the other precisions
            self.config["bf16"] = {"enabled": True, "check_grad_overflow": True}
            self.config["data_types"] = {"grad_accum_dtype": "fp32"}


def sharding_of(
    strategy: Strategy,
) -> Callable[[torch.dtype], AbstractContextManager[None]] | None:
    """Return the context in which weights are loaded, given their dtype; None without ZeRO 3."""
    if isinstance(strategy, ZeroStrategy) and strategy.stage == 3:
        return strategy.loading_in_shards
    return None


def is_sharded(model: nn.Module) -> bool:
    """Return whether ZeRO 3 has sharded the model's weights."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def prepare_loss(strategy: Strategy, loss: nn.Module) -> None:
    """Prepare a loss with parameters for ZeRO, before the strategy is set up; else do nothing.

    ZeRO 3 gathers all weights of the loss together. Otherwise every module inside it would have to
    take and return plain tensors.

    Raises:
        UserError: a parameter has no dimension, which DeepSpeed cannot send to other ranks.
    """
    if not isinstance(strategy, ZeroStrategy):
        return
    for name, parameter in loss.named_parameters():
        if parameter.ndim == 0:
            raise UserError(
                f"{name}: a parameter of the loss has no dimension, and strategy=zero"
                f"{strategy.stage} needs one. Fix: give it the shape [1], as in "
                "torch.nn.Parameter(torch.zeros(1))"
            )
    if strategy.stage == 3:
        from deepspeed.utils import set_z3_leaf_module

        set_z3_leaf_module(loss, True)
