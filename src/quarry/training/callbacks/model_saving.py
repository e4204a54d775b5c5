"""Save the trained model at the end of training, while every rank still has its shard of it."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl


class ModelSaving(pl.Callback):
    """Call `save` with the model when training ends, on all ranks.

    (After `Trainer.fit` it would be too late: sharded weights are freed by then.)

    Args:
        save: writes the bi-encoder; called with the argument `model`.

    Attributes:
        has_saved: `save` was called; False where a resumed run had nothing left to train.
    """

    def __init__(self, save: Callable[..., None]) -> None:
        self._save = save
        self.has_saved = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(model=pl_module.model)
        self.has_saved = True
