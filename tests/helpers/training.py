"""The smallest training that Lightning runs: one number, and a loss that a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader


class OneNumber(pl.LightningModule):
    """Trains `weight`, from 1, by SGD at a rate of 0.5, on `loss(weight, batch)`."""

    def __init__(
        self, loss: Callable[[Tensor, Tensor], Tensor], *, is_fused: bool | None = None
    ) -> None:
        super().__init__()
        self.is_fused = is_fused
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.loss = loss

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.loss(self.weight, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5, fused=self.is_fused)


def loader_of(batches: Sequence[Any]) -> DataLoader[Any]:
    """Hands out ready-made batches in order, and leaves torch's random numbers alone.

    (A plain list would be taken for many loaders.)
    """
    return DataLoader(batches, batch_size=None, generator=torch.Generator())  # type: ignore[arg-type]


def quiet_trainer(*callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    """A trainer on the CPU that writes nothing."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "log_every_n_steps": 1,
        "max_epochs": 1,
    }
    return pl.Trainer(callbacks=list(callbacks), **(quiet | settings))


def fit(
    loss: Callable[[Tensor, Tensor], Tensor],
    batches: Sequence[float],
    *callbacks: pl.Callback,
    **settings: Any,
) -> tuple[OneNumber, pl.Trainer]:
    """Trains on `batches`, each a number."""
    module, trainer = OneNumber(loss), quiet_trainer(*callbacks, **settings)
    trainer.fit(module, loader_of([torch.tensor(float(batch)) for batch in batches]))
    return module, trainer
