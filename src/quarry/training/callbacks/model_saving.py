"""Saves the trained model at the end of training, while every process still has its part of it."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl


class ModelSaving(pl.Callback):
    """Calls `save` with the model when training ends, in all processes.

    (After `Trainer.fit` it would be too late: weights in shards are gone by then.)

    Args:
        save: called with `model`, the bi-encoder; writes it.

    Attributes:
        has_saved: it was called; not so where a resumed run had nothing left to train.
    """

    def __init__(self, save: Callable[..., None]) -> None:
        self._save = save
        self.has_saved = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(model=pl_module.model)
        self.has_saved = True
