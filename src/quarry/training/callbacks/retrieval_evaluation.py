"""Evaluates retrieval before, during and after training, and in `Trainer.test`: one Evaluator."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from quarry.evaluation.evaluator import Evaluator
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.retriever import Retriever
from quarry.types import Report

logger = logging.getLogger(__name__)


class RetrievalEvaluation(pl.Callback):
    """Encodes, searches and scores the evaluator's benchmark with the module's current weights.

    Metrics go to every logger and to `trainer.callback_metrics` as `val/<set>/ndcg_at_10`.

    Args:
        evaluator: benchmark and measures.
        retriever: how the embeddings are searched.
        build_encoder: bi-encoder -> encoder with the tokeniser and budgets of this run.
        every_n_steps: updates between evaluations in training; 0: only before and after.
        on_report: called with each report of `before` and `after` training, or of a test.
        name: of the report of a test.

    Attributes:
        history: (step, main measure averaged over the sets), for the learning curve.
    """

    def __init__(
        self,
        *,
        evaluator: Evaluator,
        retriever: Retriever,
        build_encoder: Callable[[torch.nn.Module], TextEncoder],
        every_n_steps: int = 0,
        on_report: Callable[[Report], None],
        name: str | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.retriever = retriever
        self.build_encoder = build_encoder
        self.every_n_steps = every_n_steps
        self.on_report = on_report
        self.name = name
        self.history: list[tuple[int, float]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = [(int(step), float(value)) for step, value in state_dict["history"]]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self.on_report(self._evaluate(trainer, pl_module, "untrained"))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        step = trainer.global_step
        is_due = self.every_n_steps > 0 and step > 0 and step % self.every_n_steps == 0
        is_last = step >= trainer.estimated_stepping_batches  # on_train_end will do it
        if is_due and not is_last and self._last_step() != step:
            self._evaluate(trainer, pl_module, f"step {step}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_report(self._evaluate(trainer, pl_module, "trained"))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_report(self._evaluate(trainer, pl_module, self.name or self.retriever.name))

    def _last_step(self) -> int | None:
        return self.history[-1][0] if self.history else None

    def _evaluate(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> Report:
        encoder = self.build_encoder(pl_module.model)
        with trainer.precision_plugin.forward_context():  # as in training steps
            report = self.evaluator.evaluate(self.retriever, name=name, encoder=encoder)
        if trainer.training:
            step, main = trainer.global_step, self.evaluator.measures[0]
            # a resumed run may evaluate a step again
            self.history = [point for point in self.history if point[0] != step]
            self.history.append((step, report.mean(main)))
        values = metric_values(report)
        for pl_logger in trainer.loggers:
            pl_logger.log_metrics(values, step=trainer.global_step)
        trainer.callback_metrics.update({key: torch.tensor(v) for key, v in values.items()})
        return report


def metric_values(report: Report) -> dict[str, float]:
    """`val/<set>/<measure>` -> value, measures as loggers like them: ndcg_at_10."""
    return {
        f"val/{result.name}/{measure_key(measure)}": value
        for result in report.results
        for measure, value in result.metrics.items()
    }


def measure_key(measure: str) -> str:
    """`nDCG@10` -> `ndcg_at_10`."""
    return re.sub(r"[^a-z0-9]+", "_", measure.lower().replace("@", "_at_"))
