"""Stop a run whose loss or gradient is not finite, before an optimizer step uses it."""

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
from quarry.training.finite import are_finite


class TrainingDivergedError(SharedError):
    """The loss, the gradient or the weights became NaN or infinite; all ranks raise it.

    Args:
        what: happened, and at which step.

    Attributes:
        kept: says which state is left; `LastCheckpoint` knows.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.kept = "No checkpoint had been written yet."

    def __str__(self) -> str:
        return (
            f"{self.what}. {self.kept} Fix: lower optimizer.lr, raise loss.temperature or the "
            "warm-up, or set trainer.gradient_clip_val=1.0."
        )


class StopOnDivergence(pl.Callback):
    """Check losses and gradient norm of each optimizer step; skip a step that is not finite.

    The weights remain those of the last good step; after the last step they are checked themselves.
    `LastCheckpoint` falls back to the last good checkpoint.
    Reading numbers from a GPU waits for all launched kernels, which takes a twentieth of a step of
    a 7B model. A fused optimizer therefore receives on the device whether to skip its step, and the
    host reads the numbers at the next step.
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
        # once: in a small model, collecting them takes a noticeable part of each step
        self._trained = [each for each in pl_module.parameters() if each.requires_grad]

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        self.look()
        gradients = [each.grad for each in self._trained if each.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)  # 0 where DeepSpeed holds the gradients
        losses, self._losses = self._losses, []
        # each rank has a share of the loss; all ranks must see the same numbers and stop together
        numbers = world.total(torch.stack([*losses, norm.to(losses[0])])) / world.size()
        self._on_the_way = trainer.global_step + 1, Downloader(numbers.device).start(numbers)
        is_zero = isinstance(trainer.strategy, ZeroStrategy)
        if not is_zero:
            pl_module.log("train/gradient_norm", norm)
        if not is_zero and optimizer.defaults.get("fused"):
            # torch's own way of skipping a step, made for loss scaling
            is_bad = (~numbers.isfinite()).any().float()
            optimizer.found_inf = is_bad  # type: ignore[attr-defined] # declared nowhere in torch
        else:
            self.look()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        self._look_at_zero(trainer, pl_module)
        step = trainer.global_step
        if step >= trainer.estimated_stepping_batches:  # no later step will look
            self.look()
            if not are_finite(pl_module, trainer.optimizers):
                raise self._error(f"The weights are not finite after step {step}, the last one")

    def _look_at_zero(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after DeepSpeed has skipped a step whose gradient norm is not finite."""
        strategy = trainer.strategy
        if not isinstance(strategy, ZeroStrategy) or trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        engine = strategy.deepspeed_engine
        norm = engine.get_global_grad_norm()
        if not engine.was_step_applied():
            raise self._stopped("gradient norm", float(norm), trainer.global_step)
        pl_module.log("train/gradient_norm", norm)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.look()

    def look(self) -> None:
        """Read the numbers of the last step, and raise an error if one is not finite.

        Right after a step it waits for the device.
        """
        if self._on_the_way is None:
            return
        (step, download), self._on_the_way = self._on_the_way, None
        *losses, norm = download.result().tolist()
        for what, number in [*(("loss", loss) for loss in losses), ("gradient norm", norm)]:
            if not math.isfinite(number):
                raise self._stopped(what, number, step)

    def _stopped(self, what: str, value: float, step: int) -> TrainingDivergedError:
        return self._error(
            f"The {what} is {value} at step {step}: training stopped, without that optimizer step"
        )

    def _error(self, what: str) -> TrainingDivergedError:
        error = TrainingDivergedError(what)
        if self.checkpoint.exists():
            error.kept = f"The last state is in {self.checkpoint}."
        return error
