"""Evaluates retrieval before, during and after training, and in `Trainer.test`: one Evaluator."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytorch_lightning as pl
import torch

from quarry.evaluation.evaluator import Evaluator
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.retriever import Retriever
from quarry.training.evaluation_log import log_report, metric_names, metric_values
from quarry.training.state import preserved_training_state
from quarry.types import Report

logger = logging.getLogger(__name__)

UNTRAINED = "untrained"
"""Name of the report that was made before training."""


class RetrievalEvaluation(pl.Callback):
    """Encode, search and score the evaluator's benchmark with the module's current weights.

    Training continues as if nothing had happened (`preserved_training_state`). Metrics go to every
    logger and to `trainer.callback_metrics`: see `metric_values`. An evaluation in training, but
    for the one before it, ends as a validation of Lightning's does: `on_validation_end` of the
    callbacks that monitor a metric is called. So `EarlyStopping(check_on_train_epoch_end=False)`
    and `ModelCheckpoint(save_on_train_epoch_end=False)` act on fresh values and on those alone.

    Args:
        evaluator: benchmark and measures.
        retriever: how the embeddings are searched.
        build_encoder: bi-encoder -> encoder with the tokenizer and budgets of this run.
        every_n_steps: optimizer steps between evaluations in training; 0: only before and after.
        before_training: evaluate the untrained model, too.
        on_report: called with each report of `before` and `after` training, or of a test.
        name: of the report of a test.
        baseline: returns the report that W&B's table compares with, if there is one.
        num_examples: queries a set that W&B gets with their best documents.
        contract: how texts are fed, for the reports, see `Report`.
        training_caveats: of the training data, for the reports of what was trained on it.

    Attributes:
        history: (step, main measure averaged over the sets), for the learning curve.
        last_report: of this process.
    """

    def __init__(
        self,
        *,
        evaluator: Evaluator,
        retriever: Retriever,
        build_encoder: Callable[[BiEncoder], TextEncoder],
        every_n_steps: int = 0,
        before_training: bool = True,
        on_report: Callable[[Report], None],
        name: str | None = None,
        baseline: Callable[[], Report | None] = lambda: None,
        num_examples: int = 0,
        contract: Mapping[str, Any] | None = None,
        training_caveats: tuple[str, ...] = (),
    ) -> None:
        self.evaluator = evaluator
        self.retriever = retriever
        self.build_encoder = build_encoder
        self.every_n_steps = every_n_steps
        self.before_training = before_training
        self.on_report = on_report
        self.name = name
        self.baseline = baseline
        self.num_examples = num_examples
        self.contract = contract or {}
        self.training_caveats = training_caveats
        self.history: list[tuple[int, float]] = []
        self.last_report: Report | None = None
        self._last_step: int | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = [(int(step), float(value)) for step, value in state_dict["history"]]
        self._last_step = state_dict["last_step"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.before_training and trainer.global_step == 0:
            self.on_report(self._evaluate(trainer, pl_module, UNTRAINED))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        step = trainer.global_step
        is_due = self.every_n_steps > 0 and step > 0 and step % self.every_n_steps == 0
        if is_due and self._last_step != step:  # not again for the next batch of a step
            self._evaluate(trainer, pl_module, f"step {step}")
            _end_validation(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.last_report is not None and self._last_step == trainer.global_step > 0:
            self.on_report(replace(self.last_report, retriever="trained"))
            return
        self.on_report(self._evaluate(trainer, pl_module, "trained"))
        _end_validation(trainer, pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.on_report(self._evaluate(trainer, pl_module, self.name or self.retriever.name))

    def _evaluate(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> Report:
        encoder = self.build_encoder(cast(BiEncoder, pl_module.model))
        with (
            preserved_training_state(pl_module),
            trainer.precision_plugin.forward_context(),  # as in training steps
        ):
            report = self.evaluator.evaluate(self.retriever, name=name, encoder=encoder)
        is_trained = name != UNTRAINED
        report = replace(
            report,
            contract=self.contract,
            training_caveats=self.training_caveats if is_trained else (),
        )
        if trainer.training:
            self._remember(report, step=trainer.global_step)
        log_report(
            trainer.loggers,
            report,
            evaluator=self.evaluator,
            step=trainer.global_step,
            baseline=self.baseline(),
            num_examples=self.num_examples,
        )
        values = metric_values(report)
        for key in metric_names(self.evaluator):  # of what failed no older value may be left
            trainer.callback_metrics.pop(key, None)
        trainer.callback_metrics.update({key: torch.tensor(v) for key, v in values.items()})
        return report

    def _remember(self, report: Report, *, step: int) -> None:
        self.last_report, self._last_step = report, step
        # a resumed run may evaluate a step again
        self.history = [point for point in self.history if point[0] != step]
        if not report.failures:  # a mean of fewer sets is none of the curve
            self.history.append((step, report.mean(self.evaluator.measures[0])))


def _end_validation(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Call the callbacks that wait for a metric. (Progress bars expect a loop of Lightning's.)"""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if getattr(callback, "monitor", None) is None:
            continue
        was_to_stop = trainer.should_stop
        callback.on_validation_end(trainer, pl_module)
        if trainer.should_stop and not was_to_stop:
            who, step = type(callback).__name__, trainer.global_step
            logger.info("%s ends training after %d optimizer steps", who, step)
