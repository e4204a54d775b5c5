"""Define the LightningModule, which trains a bi-encoder on contrastive batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from quarry.distributed import world
from quarry.distributed.reduction import Reduction, reduction_of
from quarry.distributed.zero import is_sharded, prepare_loss, sharding_of
from quarry.errors import UserError
from quarry.losses.base import Loss, checked_loss, loss_groups
from quarry.models.bi_encoder import BiEncoder
from quarry.training.contrastive_batch import ContrastiveBatchLoss
from quarry.training.grad_cache import GradCache
from quarry.training.memory_choice import MemoryChoice
from quarry.training.optim import leave_scaling_to_trainer, parameter_groups
from quarry.training.trained_state import check_checkpoint, only_trained
from quarry.types import RetrievalBatch, TokenBatch


class RetrievalModule(pl.LightningModule):
    """Train a bi-encoder, independently of files, metrics and configuration.

    Args:
        build_model: called once on each rank, in `setup`, when the process group exists and
            parameter sharding is not active yet. It receives `device`; under ZeRO 3 `sharding`, the
            context for loading weights; and `gradient_checkpointing`, if `settle_memory` chose it.
        loss: trained with the model, in the optimizer's group that it names; None: the module
            evaluates only.
        optimizer: parameter groups -> optimizer.
        scheduler: (optimizer, num_training_steps=...) -> learning-rate schedule.
        num_training_steps: optimizer steps of the run. (Lightning's own estimate would set up the
            data before the checkpoint's position in it is restored, and a resumed epoch would start
            again.)
        grad_cache_chunk_tokens: tokens in one forward pass (GradCache); None: a contrastive batch
            in one pass.
        settle_memory: chooses gradient checkpointing and GradCache chunks; called in `setup` on
            each rank, before the model is built, with the device and the loggers.
    """

    strict_loading = False  # checkpoints hold trained weights only, see `on_load_checkpoint`

    def __init__(
        self,
        *,
        build_model: Callable[..., BiEncoder],
        loss: Loss | None = None,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        num_training_steps: int = 0,
        grad_cache_chunk_tokens: int | None = None,
        settle_memory: Callable[[torch.device, Sequence[Logger]], MemoryChoice] | None = None,
    ) -> None:
        super().__init__()
        self._build_model = build_model
        self.batch_loss = None if loss is None else ContrastiveBatchLoss(checked_loss(loss))
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._num_training_steps = num_training_steps
        self._grad_cache_chunk_tokens = grad_cache_chunk_tokens
        self._settle_memory = settle_memory
        self._grad_cache: GradCache | None = None
        self._reduction: Reduction
        self.model: BiEncoder

    def setup(self, stage: str) -> None:
        strategy = self.trainer.strategy
        sharding = sharding_of(strategy)
        if self.batch_loss is not None:
            prepare_loss(strategy, self.batch_loss)
        if hasattr(self, "model"):
            if sharding is not None and not is_sharded(self.model):
                raise UserError(
                    "strategy=zero3: every rank has loaded the full model already (it must load "
                    "shards). Fix: pass `build_model` and let the module call it."
                )
        else:
            more: dict[str, Any] = {} if sharding is None else {"sharding": sharding}
            if stage == "fit" and self._settle_memory is not None:
                choice = self._settle_memory(strategy.root_device, self.trainer.loggers)
                self._grad_cache_chunk_tokens = choice.grad_cache_chunk_tokens
                more["gradient_checkpointing"] = choice.gradient_checkpointing
            self.model = self._build_model(device=strategy.root_device, **more)
            # transformers returns models in eval mode, and Lightning keeps the mode
            self.model.train(stage == "fit")
        if stage == "fit" and self._grad_cache_chunk_tokens is not None:
            self._grad_cache = GradCache(
                chunk_tokens=self._grad_cache_chunk_tokens,
                num_chunks=None if sharding is None else world.largest,
            )

    def on_train_start(self) -> None:
        self._reduction = reduction_of(
            self.trainer.strategy,
            parameters=self._trained_parameters(),
            is_step_due=lambda: not self.trainer.fit_loop._should_accumulate(),
            is_chunked=self._grad_cache is not None,
        )

    def on_train_end(self) -> None:
        self._reduction.close()

    def training_step(self, batch: RetrievalBatch, batch_idx: int) -> Tensor:
        assert self.batch_loss is not None, "a module without a loss evaluates only"
        loss: Tensor
        loss, metrics = self.batch_loss(self._embed(batch.tokens), batch)
        values = {f"train/{name}": value for name, value in metrics.items()}
        self.log_dict(values, batch_size=batch.num_queries)  # of all ranks already
        return loss

    def on_before_backward(self, loss: Tensor) -> None:
        self._reduction.begin()

    def on_after_backward(self) -> None:
        """Continue Lightning's backward pass, which ended at GradCache's embeddings."""
        if self._grad_cache is not None:
            parameters = self._trained_parameters()
            self._grad_cache.backward(self._forward, parameters, self._reduction.backward)

    def _embed(self, tokens: TokenBatch) -> Tensor:
        if self._grad_cache is None:
            return self._forward(tokens)
        return self._grad_cache.embed(self._forward, tokens)

    def _forward(self, tokens: TokenBatch) -> Tensor:
        # GradCache's backward pass runs outside of Lightning's autocast
        with self.trainer.precision_plugin.forward_context():
            embeddings: Tensor = self.model(tokens)
            return embeddings

    def _trained_parameters(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = only_trained(checkpoint["state_dict"], self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_checkpoint(checkpoint, self)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Do nothing: the evaluation callback runs at the end of the (one-batch) epoch."""

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        assert self._optimizer is not None
        assert self._scheduler is not None
        groups = parameter_groups(self.model)
        groups += [] if self.batch_loss is None else loss_groups(self.batch_loss.loss)
        optimizer = leave_scaling_to_trainer(self._optimizer(groups))
        scheduler = self._scheduler(optimizer, num_training_steps=self._num_training_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
