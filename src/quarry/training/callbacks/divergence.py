"""Stops a run whose loss or gradient is no longer a number, before it can spoil the weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from quarry.distributed import world
from quarry.distributed.zero import ZeroStrategy
from quarry.errors import SharedError
from quarry.retrieval.download import Download, Downloader


class TrainingDivergedError(SharedError):
    """The loss or the gradient became NaN or infinite."""


class StopOnDivergence(pl.Callback):
    """Checks the losses and the gradient norm of each update; none that is bad is made.

    The weights, and so the last checkpoint, are still those of the last good step. A look at
    numbers on a GPU waits for all that was launched, in 7B a twentieth of a step, so a fused
    optimizer is told on the device to leave out the update, and the look comes with the next one.
    The gradient norm (before clipping) is logged as `train/gradient_norm`.

    Args:
        checkpoint: named in the message.
    """

    def __init__(self, *, checkpoint: str | Path) -> None:
        self.checkpoint = Path(checkpoint)
        self._losses: list[Tensor] = []
        self._trained: list[Parameter] = []
        self._on_the_way: tuple[int, Download] | None = None
        self._last_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step
        # once: in a small model the walk over all modules is a part of each update that shows
        self._trained = [each for each in pl_module.parameters() if each.requires_grad]

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        self._look()
        gradients = [each.grad for each in self._trained if each.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)  # of none where DeepSpeed has them: 0
        losses, self._losses = self._losses, []
        # one process has a share of the loss; all have to see the same, and stop together
        numbers = world.total(torch.stack([*losses, norm.to(losses[0])])) / world.size()
        self._on_the_way = trainer.global_step + 1, Downloader(numbers.device).start(numbers)
        is_zero = isinstance(trainer.strategy, ZeroStrategy)
        if not is_zero:
            pl_module.log("train/gradient_norm", norm)
        if not is_zero and optimizer.defaults.get("fused"):
            # torch's own means of leaving out an update, made for the scaling of losses
            is_bad = (~numbers.isfinite()).any().float()
            optimizer.found_inf = is_bad  # type: ignore[attr-defined] # declared nowhere in torch
        else:
            self._look()

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

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look()

    def _look(self) -> None:
        """At the numbers that were noted last."""
        if self._on_the_way is None:
            return
        (step, download), self._on_the_way = self._on_the_way, None
        *losses, norm = download.result().tolist()
        for what, number in [*(("loss", loss) for loss in losses), ("gradient norm", norm)]:
            if not math.isfinite(number):
                raise TrainingDivergedError(self._message(what, number, step))

    def _message(self, what: str, value: Any, step: int) -> str:
        if self.checkpoint.exists():
            kept = f"The last good state is kept in {self.checkpoint}."
        else:
            kept = "No checkpoint had been written yet."
        return (
            f"The {what} is {value} at step {step}: training stopped, without that update. {kept} "
            "Lower optimizer.lr, raise loss.temperature or the warm-up, or set "
            "trainer.gradient_clip_val=1.0."
        )
