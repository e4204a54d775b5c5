"""End training once the loss has fallen far enough: a model that can learn memorizes a little."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl

from quarry.errors import UserError

logger = logging.getLogger(__name__)


class LossFalls(pl.Callback):
    """Stop when `train/loss`, which is that of all ranks, is `fraction` of the first one or less.

    Args:
        fraction: of the loss of the first optimizer step, in (0, 1).

    Raises:
        UserError: training ended before; with both losses.
    """

    def __init__(self, *, fraction: float) -> None:
        if not 0 < fraction < 1:
            raise UserError(f"callbacks.loss_falls.fraction={fraction}: must be between 0 and 1")
        self.fraction = fraction
        self._first: float | None = None
        self._last = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._last = float(trainer.callback_metrics["train/loss"])
        self._first = self._last if self._first is None else self._first
        if self._has_fallen(self._first):
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._first is None:
            return
        text = f"loss {self._first:.4g} to {self._last:.4g} in {trainer.global_step} steps"
        if not self._has_fallen(self._first):
            raise UserError(
                f"debug=overfit: {text}, and {self.fraction:g} of the first was expected. Fix: "
                "another optimizer.lr, more trainer.max_steps, or look at the data"
            )
        logger.info("debug=overfit: %s", text)

    def _has_fallen(self, first: float) -> bool:
        return self._last <= self.fraction * first
