"""Stops a run whose loss or gradient is no longer a number, before it can spoil the weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from quarry.distributed import world
from quarry.distributed.zero import ZeroStrategy
from quarry.errors import SharedError


class TrainingDivergedError(SharedError):
    """The loss or the gradient became NaN or infinite."""


class StopOnDivergence(pl.Callback):
    """Checks the losses and the gradient norm before each update.

    The weights, and so the last checkpoint, are still those of the last good step. All numbers of
    an update are looked at together: on a GPU each look waits for all that was launched. The
    gradient norm (before clipping) is logged as `train/gradient_norm`.

    Args:
        checkpoint: named in the message.
    """

    def __init__(self, *, checkpoint: str | Path) -> None:
        self.checkpoint = Path(checkpoint)
        self._losses: list[Tensor] = []
        self._last_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)  # of none where DeepSpeed has them: 0
        losses, self._losses = self._losses, []
        # one process has a share of the loss; all have to see the same, and stop together
        shares = torch.stack([*losses, norm.to(losses[0])])
        *found, found_norm = (world.total(shares) / world.size()).tolist()
        for loss in found:
            if not math.isfinite(loss):
                raise TrainingDivergedError(self._message("loss", loss, trainer.global_step + 1))
        if not math.isfinite(found_norm):
            message = self._message("gradient norm", found_norm, trainer.global_step + 1)
            raise TrainingDivergedError(message)
        if not isinstance(trainer.strategy, ZeroStrategy):
            pl_module.log("train/gradient_norm", norm)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """DeepSpeed skips an update whose gradient is no number, and tells afterwards."""
        strategy = trainer.strategy
        if not isinstance(strategy, ZeroStrategy) or trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        engine = strategy.deepspeed_engine
        norm = engine.get_global_grad_norm()
        if not engine.was_step_applied():
            message = self._message("gradient norm", float(norm), trainer.global_step)
            raise TrainingDivergedError(message)
        pl_module.log("train/gradient_norm", norm)

    def _message(self, what: str, value: Any, step: int) -> str:
        if self.checkpoint.exists():
            kept = f"The last good state is kept in {self.checkpoint}."
        else:
            kept = "No checkpoint had been written yet."
        return (
            f"The {what} is {value} at step {step}: training stopped before this update. "
            f"{kept} Lower optimizer.lr, raise loss.temperature or the warm-up, or set "
            "trainer.gradient_clip_val=1.0."
        )
