"""The LightningModule: builds the bi-encoder, runs one contrast set, hands over the optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from quarry.models.bi_encoder import BiEncoder
from quarry.training.optim import parameter_groups
from quarry.types import LossOutput, RetrievalBatch


class RetrievalModule(pl.LightningModule):
    """Trains a bi-encoder; knows nothing of files, metrics or configuration.

    Args:
        build_model: called once on each rank, in `setup`, when the process group is up and no
            parameter sharding is active yet.
        loss: (queries, passages, positive_index) -> LossOutput.
        optimizer: parameter groups -> optimiser.
        scheduler: (optimizer, num_training_steps=...) -> learning-rate schedule.
        num_training_steps: updates of the whole run. (Lightning's own estimate, asked for here,
            would set up the data before a checkpoint's position in it is known: a resumed epoch
            would start again.)
    """

    def __init__(
        self,
        *,
        build_model: Callable[[], BiEncoder],
        loss: Callable[[Tensor, Tensor, Tensor], LossOutput] | None = None,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
        num_training_steps: int = 0,
    ) -> None:
        super().__init__()
        self._build_model = build_model
        self._loss = loss
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._num_training_steps = num_training_steps
        self.model: BiEncoder

    def setup(self, stage: str) -> None:
        if not hasattr(self, "model"):
            self.model = self._build_model()
            # transformers hands out models in eval mode; Lightning keeps the mode it finds
            self.model.train(stage == "fit")

    def training_step(self, batch: RetrievalBatch, batch_idx: int) -> Tensor:
        assert self._loss is not None, "a module without a loss evaluates only"
        embeddings = self.model(batch.tokens)
        queries, passages = embeddings.split([batch.num_queries, batch.num_passages])
        output = self._loss(queries, passages, batch.positive_index)
        values = {"train/loss": output.loss.detach()}
        values |= {f"train/{name}": value for name, value in output.metrics.items()}
        self.log_dict(values, batch_size=batch.num_queries)
        return output.loss

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: the evaluation callback does its work at the end of the (one-batch) epoch."""

    def configure_optimizers(self) -> dict[str, Any]:
        assert self._optimizer is not None
        assert self._scheduler is not None
        optimizer = self._optimizer(parameter_groups(self.model))
        scheduler = self._scheduler(optimizer, num_training_steps=self._num_training_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
