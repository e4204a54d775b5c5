"""Save the best model of a training run, as a model folder that any command can load."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from quarry.training.state import preserved_training_state

logger = logging.getLogger(__name__)


class BestModel(pl.Callback):
    """Save the model after each evaluation that is better than all before it.

    The evaluation before training does not count. Equal values keep the earlier model.

    Args:
        monitor: metric of `RetrievalEvaluation`, all of which are better when higher.
        folder: of the best model; it is replaced only once a better one is written completely.
        save_model: called with the folder and the monitor, step and value.

    Attributes:
        step, value: of the best evaluation so far; None before there is one.
    """

    def __init__(
        self,
        *,
        monitor: str,
        folder: str | Path,
        save_model: Callable[[Path, dict[str, Any]], None],
    ) -> None:
        self.monitor = monitor
        self.folder = Path(folder)
        self.save_model = save_model
        self.step: int | None = None
        self.value: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "value": self.value}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step, self.value = state_dict["step"], state_dict["value"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.monitor not in trainer.callback_metrics:
            logger.warning("%s has no value this time: the best model stays", self.monitor)
            return
        value = float(trainer.callback_metrics[self.monitor])
        if self.value is not None and not value > self.value:
            return
        with preserved_training_state(pl_module):
            facts = {"monitor": self.monitor, "step": trainer.global_step, "value": value}
            self.save_model(self.folder, facts)
        self.step, self.value = trainer.global_step, value
        logger.info("%s", self.summary)

    @property
    def summary(self) -> str | None:
        """Return a line with folder, step and metric of the best model; None without one."""
        if self.value is None:
            return None
        return f"Best model: {self.folder} (step {self.step}, {self.monitor}={self.value:.4f})"
