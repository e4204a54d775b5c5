"""Evaluate retrieval before, during and after training and in `Trainer.test`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import pytorch_lightning as pl
import torch

from quarry.evaluation.evaluator import Evaluator
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.reranked import stages_of
from quarry.retrieval.retriever import Retriever
from quarry.training.evaluation_log import log_report, metric_names, metric_values
from quarry.training.state import preserved_training_state
from quarry.types import Report

logger = logging.getLogger(__name__)

UNTRAINED = "untrained"
"""Name of the report before training."""


class RetrievalEvaluation(pl.Callback):
    """Encode, search and score the evaluator's benchmark with the module's current weights.

    It does not affect training (`preserved_training_state`). Metrics go to every logger and to
    `trainer.callback_metrics`: see `metric_values`. Each evaluation except the one before training
    ends as Lightning's validation does: it calls `on_validation_end` of the callbacks that monitor
    a metric. So `EarlyStopping(check_on_train_epoch_end=False)` and
    `ModelCheckpoint(save_on_train_epoch_end=False)` act on fresh values only.

    Args:
        evaluator: benchmark and measures.
        retriever: how the embeddings are searched.
        build_encoder: bi-encoder -> encoder with the tokenizer and budgets of this run.
        every_n_steps: optimizer steps between evaluations in training; 0: only before and after.
        before_training: evaluate the untrained model, too.
        on_report: called with the reports before and after training, or of a test: that of the
            retriever, then that of its first stage if there is one.
        name: name of a test's report.
        baseline: returns the baseline's report for W&B's table, None if there is none.
        num_examples: queries a set that W&B receives with their best documents.
        contract: how texts are fed, for the reports, see `Report`.
        training_caveats: of the training data, for the reports of the trained model.

    Attributes:
        history: (step, mean of the main measure over the sets), for the learning curve.
        last_report: the newest report in training.
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
        if is_due and self._last_step != step:  # once for all batches of a step
            self._evaluate(trainer, pl_module, f"step {step}")
            _end_validation(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.last_report is not None and self._last_step == trainer.global_step > 0:
            self.on_report(replace(self.last_report, retriever="trained"))
            return
        self.on_report(self._evaluate(trainer, pl_module, "trained"))
        _end_validation(trainer, pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        *earlier, last = stages_of(self.retriever)
        reports = [self._report_of(trainer, pl_module, stage, stage.name) for stage in earlier]
        name = self.name or self.retriever.name
        self.on_report(self._evaluate(trainer, pl_module, name, retriever=last, beside=reports))
        for report in reports:
            self.on_report(report)

    def _evaluate(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        name: str,
        *,
        retriever: Retriever | None = None,
        beside: Sequence[Report] = (),
    ) -> Report:
        """Evaluate, log and return the report.

        Args:
            retriever: None: that of the callback.
            beside: reports of earlier stages; the first is the baseline if there is no other.
        """
        report = self._report_of(trainer, pl_module, retriever or self.retriever, name)
        if trainer.training:
            self._remember(report, step=trainer.global_step)
        log_report(
            trainer.loggers,
            report,
            evaluator=self.evaluator,
            step=trainer.global_step,
            baseline=self.baseline() or next(iter(beside), None),
            num_examples=self.num_examples,
        )
        values = metric_values(report)
        for key in metric_names(self.evaluator):  # no older value of a failed set may remain
            trainer.callback_metrics.pop(key, None)
        trainer.callback_metrics.update({key: torch.tensor(v) for key, v in values.items()})
        return report

    def _report_of(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, retriever: Retriever, name: str
    ) -> Report:
        encoder = self.build_encoder(cast(BiEncoder, pl_module.model))
        with (
            preserved_training_state(pl_module),
            trainer.precision_plugin.forward_context(),  # as in training steps
        ):
            report = self.evaluator.evaluate(retriever, name=name, encoder=encoder)
        return replace(
            report,
            contract=self.contract,
            training_caveats=() if name == UNTRAINED else self.training_caveats,
        )

    def _remember(self, report: Report, *, step: int) -> None:
        self.last_report, self._last_step = report, step
        # a resumed run may evaluate a step again
        self.history = [point for point in self.history if point[0] != step]
        if not report.failures:  # a mean over fewer sets does not belong on the curve
            self.history.append((step, report.mean(self.evaluator.measures[0])))


def _end_validation(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Call the callbacks that monitor a metric. (Progress bars would expect Lightning's loop.)"""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if getattr(callback, "monitor", None) is None:
            continue
        was_to_stop = trainer.should_stop
        callback.on_validation_end(trainer, pl_module)
        if trainer.should_stop and not was_to_stop:
            who, step = type(callback).__name__, trainer.global_step
            logger.info("%s ends training after %d optimizer steps", who, step)
