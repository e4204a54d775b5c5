"""Trains a bi-encoder and reports on it: before, during, after, and beside its baselines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from quarry.assembly.evaluation_encoder import unique_encoder_builder
from quarry.assembly.evaluation_parts import build_baseline, build_evaluator
from quarry.assembly.model_parts import ModelParts, build_model_parts, settle_contract
from quarry.assembly.preflight import preflight
from quarry.assembly.run_start import record_start, recorded_contract, share_run_directory
from quarry.assembly.saving import save_from_checkpoint, save_trained_model
from quarry.assembly.strategy import build_optimizer, planned_spread, settle_dtype
from quarry.assembly.trainer import build_trainer, built_loggers
from quarry.assembly.wandb_identity import identity_of
from quarry.config.instantiate import build
from quarry.config.overrides import warn_without_effect
from quarry.config.validation import validate
from quarry.data.datamodule import RetrievalDataModule, one_empty_batch
from quarry.distributed import world
from quarry.distributed.launch import ends_children
from quarry.evaluation.evaluator import Evaluator
from quarry.planning.step_fit import StepFit
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.best_keeper import BestKeeper, build_callbacks
from quarry.tasks.optimized_metric import check_optimized_metric
from quarry.tasks.summary import refuse_failures, summary_of, write_summary
from quarry.tasks.training_reports import (
    TRAINED,
    finish,
    finish_unevaluated,
    first_reports,
    keep_report,
    last_reports,
)
from quarry.training.callbacks.best_model import BestModel
from quarry.training.callbacks.cost_meter import CostMeter
from quarry.training.callbacks.loss_history import LossHistory
from quarry.training.callbacks.model_saving import ModelSaving
from quarry.training.callbacks.retrieval_evaluation import UNTRAINED, RetrievalEvaluation
from quarry.training.callbacks.rng_state import RNGState
from quarry.training.callbacks.training_progress import TrainingProgress
from quarry.training.evaluation_log import metric_names, metric_values
from quarry.training.memory_choice import MemoryChoice
from quarry.training.module import RetrievalModule
from quarry.training.monitors import check_monitors
from quarry.training.trained_state import is_spread
from quarry.types import Report

logger = logging.getLogger(__name__)


def train(config: DictConfig) -> dict[str, float]:
    """Runs a training job from the start; returns the final metrics by name.

    Each process of a run of several comes through here. The first one checks what can be checked
    once, and writes the run directory.
    """
    quiet_libraries()
    validate(config, primary="train")
    check_callbacks(config)
    settled = settle_contract(config)
    settle_dtype(config)
    share_run_directory(config)
    if not world.is_launched_first():
        return fit(config, RunDirectory.shared(config.paths.run_dir), checkpoint=None)
    preflight(build(config.model), is_trained=True, spread=planned_spread(config))
    build_model_parts(config)  # what it refuses is refused before there is a run directory
    run = RunDirectory.create(config.paths.run_dir)
    with logs_to(run.log):
        record_start(config, run, contract=settled)
        if build(config.benchmark) is None:
            names = ("before_training", "corpus_on_disk", "corpus_dtype")
            keys = [f"evaluation.{name}" for name in names]
            warn_without_effect(keys, reason="benchmark=none, which evaluates nothing")
        return fit(config, run, checkpoint=None)


def fit(config: DictConfig, run: RunDirectory, *, checkpoint: Path | None) -> dict[str, float]:
    """Trains, from the start or from `checkpoint`, and writes what the run directory is to hold."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    parts = build_model_parts(config)
    datamodule = build_datamodule(config, parts)
    evaluator = build_evaluator(config)
    meter = CostMeter(times=None if evaluator is None else evaluator.times)
    if evaluator is not None:
        evaluator.benchmark.load()  # bad data must not be found after hours of training
    step_fit = StepFit(config, run, parts.factory)
    module = build_module(config, parts, datamodule, settle_memory=step_fit)
    saving = ModelSaving(
        partial(
            save_trained_model, config, run.model, factory=parts.factory, tokenizer=parts.tokenizer
        )
    )
    reports: list[Report] = []
    evaluation = None
    keep = BestKeeper(config=config, run=run, parts=parts, module=module)
    callbacks = build_callbacks(config, save_model=keep)
    if evaluator is not None:
        reports = first_reports(config, evaluator, run, is_resumed=checkpoint is not None)
        evaluation = build_evaluation(
            config, parts, evaluator, run, reports, caveats=datamodule.dataset.caveats
        )
        keep.evaluation = evaluation
    losses = LossHistory()
    identity = identity_of(config, run, job_type="train")
    hyperparameters = stored_hyperparameters(run)
    with built_loggers(config, identity=identity, hyperparameters=hyperparameters) as loggers:
        step_fit.loggers = loggers
        has_bar = config.trainer.get("enable_progress_bar")
        progress = TrainingProgress(times=meter.times, is_bar=has_bar)
        callbacks += [meter, losses, progress, RNGState()]
        callbacks += [*([] if evaluation is None else [evaluation]), saving]
        trainer = build_trainer(
            config,
            callbacks=callbacks,
            loggers=loggers,
            accumulate_grad_batches=datamodule.num_batches_per_step,
        )
        with ends_children(trainer.strategy):
            trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
            if not saving.has_saved:  # the checkpoint was the last
                module = saved_finished(config, run, parts, module)
                if evaluation is not None:
                    trainer.test(module, one_empty_batch(), verbose=False)
        if evaluator is None or evaluation is None:
            last = trainer.callback_metrics.get("train/loss")
            values = finish_unevaluated(None if last is None else float(last), run=run)
            caveats = datamodule.dataset.caveats
            summary = summary_of([], values, of=TRAINED, cost=meter.cost(), caveats=caveats)
            write_summary(summary, [], run, loggers)
            return values
        if not world.is_launched_first():
            return metric_values(reports[-1])
        best = next((each.summary for each in callbacks if isinstance(each, BestModel)), None)
        reports += last_reports(evaluator, run, reports, has_best=best is not None)
        values = finish(reports, evaluator, evaluation, losses, run=run, best=best)
        caveats = datamodule.dataset.caveats
        summary = summary_of(reports, of=TRAINED, cost=meter.cost(), caveats=caveats)
        write_summary(summary, reports, run, loggers)
    refuse_failures(reports, run)
    return values


def build_module(
    config: DictConfig,
    parts: ModelParts,
    datamodule: RetrievalDataModule,
    *,
    settle_memory: Callable[[torch.device], MemoryChoice],
) -> RetrievalModule:
    """What is trained, and how long."""
    num_steps = datamodule.num_training_steps(
        max_epochs=config.trainer.max_epochs, max_steps=config.trainer.max_steps
    )
    return RetrievalModule(
        build_model=parts.factory.build,
        loss=build(config.loss),
        optimizer=build_optimizer(config),
        scheduler=build(config.scheduler),
        num_training_steps=num_steps,
        num_training_texts=round(num_steps * datamodule.num_texts_per_step),
        settle_memory=settle_memory,
    )


def saved_finished(
    config: DictConfig, run: RunDirectory, parts: ModelParts, module: RetrievalModule
) -> RetrievalModule:
    """Saves the model of a run that was resumed after its last update; returns it for a test."""
    if not is_spread(module):
        save_trained_model(
            config, run.model, factory=parts.factory, model=module.model, tokenizer=parts.tokenizer
        )
        return module
    # what was in shards is gone with the trainer
    world.first_does(partial(save_from_checkpoint, config, run, parts))
    saved = parts.factory.saved_as(run.model, dtype=config.model.dtype)
    return RetrievalModule(build_model=partial(saved.build, is_trained=False))


def stored_hyperparameters(run: RunDirectory) -> dict[str, Any]:
    """What loggers are told; the first process alone has loggers."""
    if not world.is_launched_first():
        return {}
    stored = OmegaConf.to_container(OmegaConf.load(run.resolved_config))
    assert isinstance(stored, dict)
    return {str(key): value for key, value in stored.items()}


def check_callbacks(config: DictConfig) -> None:
    """Refuses, before the run has a directory, a baseline, or a metric that is monitored or
    optimised, that cannot be."""
    evaluator = build_evaluator(config)
    if evaluator is not None:
        build_baseline(config, beside=TRAINED)
    names = [] if evaluator is None else metric_names(evaluator)
    check_optimized_metric(config.optimized_metric, names)
    check_monitors(
        build_callbacks(config, save_model=lambda folder, facts: None),
        names=names,
        every_n_steps=config.evaluation.every_n_steps,
    )


def build_evaluation(
    config: DictConfig,
    parts: ModelParts,
    evaluator: Evaluator,
    run: RunDirectory,
    reports: list[Report],
    *,
    caveats: tuple[str, ...],
) -> RetrievalEvaluation:
    """The callback that adds to `reports` what is measured before and after training."""
    return RetrievalEvaluation(
        evaluator=evaluator,
        retriever=build(config.retriever),
        build_encoder=unique_encoder_builder(config, parts),
        every_n_steps=config.evaluation.every_n_steps,
        before_training=config.evaluation.before_training,
        on_report=lambda report: keep_report(report, reports, run),
        name=TRAINED,
        baseline=reports[0] if reports and reports[0].retriever != UNTRAINED else None,
        num_examples=config.evaluation.num_examples,
        contract=recorded_contract(run),
        training_caveats=caveats,
    )


def build_datamodule(config: DictConfig, parts: ModelParts) -> RetrievalDataModule:
    """The training data, cut into contrastive batches."""
    data = config.data
    contrastive_batch_size = config.loss.get("contrastive_batch_size")
    return RetrievalDataModule(
        examples=build(data.examples),
        tokenizer=parts.tokenizer,
        num_hard_negatives=data.num_hard_negatives,
        global_batch_size=data.global_batch_size,
        contrastive_batch_size=contrastive_batch_size or data.global_batch_size,
        num_workers=data.num_workers,
        seed=config.seed,
    )
