"""The LightningModule: builds the bi-encoder, runs one contrast set, hands over the optimiser."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from quarry.models.bi_encoder import BiEncoder
from quarry.training.grad_cache import GradCache
from quarry.training.optim import leave_scaling_to_trainer, parameter_groups
from quarry.types import LossOutput, RetrievalBatch, TokenBatch


class RetrievalModule(pl.LightningModule):
    """Trains a bi-encoder; knows nothing of files, metrics or configuration.

    Args:
        build_model: called once on each rank, with the device that the model is to be on, in
            `setup`, when the process group is up and no parameter sharding is active yet.
        loss: (queries, passages, positive_index) -> LossOutput; one that also has an argument
            `hashes` gets the batch's `TextHashes`.
        optimizer: parameter groups -> optimiser.
        scheduler: (optimizer, num_training_steps=...) -> learning-rate schedule.
        num_training_texts: queries and passages that the whole run will see.
        num_training_steps: updates of the whole run. (Lightning's own estimate, asked for here,
            would set up the data before a checkpoint's position in it is known: a resumed epoch
            would start again.)
        num_tokens_per_chunk: tokens in one forward pass (GradCache); None: a contrast set in one.
    """

    def __init__(
        self,
        *,
        build_model: Callable[..., BiEncoder],
        loss: Callable[..., LossOutput] | None = None,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        num_training_steps: int = 0,
        num_training_texts: int = 0,
        num_tokens_per_chunk: int | None = None,
    ) -> None:
        super().__init__()
        self._build_model = build_model
        self._loss = loss
        self._takes_hashes = loss is not None and "hashes" in inspect.signature(loss).parameters
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._num_training_steps = num_training_steps
        self._num_training_texts = num_training_texts
        self._grad_cache = (
            None
            if num_tokens_per_chunk is None
            else GradCache(num_tokens_per_chunk=num_tokens_per_chunk)
        )
        self.model: BiEncoder

    def setup(self, stage: str) -> None:
        if not hasattr(self, "model"):
            self.model = self._build_model(device=self.trainer.strategy.root_device)
            # transformers hands out models in eval mode; Lightning keeps the mode it finds
            self.model.train(stage == "fit")
            self.model.prepare(num_texts=self._num_training_texts)
            if stage == "fit":
                self.model.settle()

    def training_step(self, batch: RetrievalBatch, batch_idx: int) -> Tensor:
        assert self._loss is not None, "a module without a loss evaluates only"
        embeddings = self._embed(batch.tokens)
        queries, passages = embeddings.split([batch.num_queries, batch.num_passages])
        more = {"hashes": batch.hashes} if self._takes_hashes else {}
        output = self._loss(queries, passages, batch.positive_index, **more)
        values = {"train/loss": output.loss.detach()}
        values |= {f"train/{name}": value for name, value in output.metrics.items()}
        self.log_dict(values, batch_size=batch.num_queries)
        return output.loss

    def on_after_backward(self) -> None:
        """With GradCache, Lightning's own backward pass has ended at the embeddings: goes on."""
        if self._grad_cache is not None:
            trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
            self._grad_cache.backward(self._forward, trained)

    def _embed(self, tokens: TokenBatch) -> Tensor:
        if self._grad_cache is None:
            return self._forward(tokens)
        return self._grad_cache.embed(self._forward, tokens)

    def _forward(self, tokens: TokenBatch) -> Tensor:
        # in the backward pass Lightning's autocast is over
        with self.trainer.precision_plugin.forward_context():
            embeddings: Tensor = self.model(tokens)
            return embeddings

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: the evaluation callback does its work at the end of the (one-batch) epoch."""

    def configure_optimizers(self) -> dict[str, Any]:
        assert self._optimizer is not None
        assert self._scheduler is not None
        optimizer = leave_scaling_to_trainer(self._optimizer(parameter_groups(self.model)))
        scheduler = self._scheduler(optimizer, num_training_steps=self._num_training_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
