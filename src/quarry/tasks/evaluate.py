"""Evaluates a model, or a baseline that needs none, on a benchmark."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from quarry.config.instantiate import build
from quarry.config.validation import validate
from quarry.data.datamodule import one_empty_batch
from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.plots import plot_bars
from quarry.evaluation.report import result_line, terminal_table, write_report
from quarry.retrieval.retriever import Retriever
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.output import show
from quarry.tasks.parts import (
    build_evaluator,
    build_model_parts,
    build_trainer,
    built_loggers,
    record_start,
    settle_contract,
)
from quarry.tasks.preflight import preflight
from quarry.training.callbacks.retrieval_evaluation import RetrievalEvaluation, metric_values
from quarry.training.module import RetrievalModule
from quarry.types import Report

logger = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> dict[str, float]:
    """Runs an evaluation job; returns `val/<set>/<measure>` -> value."""
    quiet_libraries()
    validate(config, primary="eval")
    pl.seed_everything(config.seed, workers=True, verbose=False)
    retriever: Retriever = build(config.retriever)
    evaluator = build_evaluator(config)
    if evaluator is None:
        raise UserError("benchmark=none leaves nothing to evaluate: choose another, see --help.")
    differences = {}
    if retriever.uses_encoder:
        differences = settle_contract(config)
        preflight(build(config.model), is_trained=False)
    run = RunDirectory.create(config.paths.run_dir)
    with logs_to(run.log):
        hyperparameters = record_start(config, run, contract_differences=differences)
        with built_loggers(config, hyperparameters=hyperparameters) as loggers:
            if retriever.uses_encoder:
                report = evaluate_model(config, retriever, evaluator, loggers)
            else:
                report = evaluator.evaluate(retriever)
                for pl_logger in loggers:
                    pl_logger.log_metrics(metric_values(report))
        write_report([report], run.path, measures=evaluator.measures)
        plot_bars([report], run.path / "plots" / "results.png", measures=evaluator.measures)
        show(
            terminal_table([report], measures=evaluator.measures),
            f"Run directory: {run.path}",
            result_line=result_line([report], evaluator.measures[0]),
        )
    return metric_values(report)


def evaluate_model(
    config: DictConfig, retriever: Retriever, evaluator: Evaluator, loggers: Sequence[Logger]
) -> Report:
    """Loads the model and evaluates it through `Trainer.test`, so that devices and strategies work
    here as they do in training."""
    parts = build_model_parts(config)
    reports: list[Report] = []
    evaluation = RetrievalEvaluation(
        evaluator=evaluator,
        retriever=retriever,
        build_encoder=parts.encoder_builder(
            max_tokens_per_batch=config.evaluation.max_tokens_per_batch
        ),
        on_report=reports.append,
    )
    trainer = build_trainer(config, callbacks=[evaluation], loggers=loggers)
    module = RetrievalModule(build_model=partial(parts.factory.build, is_trained=False))
    trainer.test(module, one_empty_batch(), verbose=False)
    return reports[0]
