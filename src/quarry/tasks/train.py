"""Trains a bi-encoder and reports on it: before, during, after, and beside its baselines."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from quarry.config.instantiate import build, build_named
from quarry.config.validation import validate
from quarry.data.datamodule import RetrievalDataModule, one_empty_batch
from quarry.distributed import world
from quarry.distributed.launch import agreed_with_first, ends_children
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.plots import plot_bars, plot_learning_curve
from quarry.evaluation.report import result_line, terminal_table, write_report
from quarry.evaluation.run_directory_files import run_path
from quarry.metrics.run_files import read_run
from quarry.retrieval.fusion import reciprocal_rank_fusion
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.output import show
from quarry.tasks.parts import (
    ModelParts,
    build_evaluator,
    build_model_parts,
    build_trainer,
    built_loggers,
    record_start,
    settle_contract,
)
from quarry.tasks.preflight import preflight
from quarry.tasks.saving import save_from_checkpoint, save_trained_model
from quarry.tasks.strategy import build_optimizer, planned_spread, settle_dtype
from quarry.training.callbacks.loss_history import LossHistory
from quarry.training.callbacks.model_saving import ModelSaving
from quarry.training.callbacks.retrieval_evaluation import RetrievalEvaluation, metric_values
from quarry.training.callbacks.rng_state import RNGState
from quarry.training.module import RetrievalModule
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
    differences = settle_contract(config)
    settle_dtype(config)
    share_run_directory(config)
    if not world.is_launched_first():
        return fit(config, RunDirectory.shared(config.paths.run_dir), checkpoint=None)
    preflight(build(config.model), is_trained=True, spread=planned_spread(config))
    run = RunDirectory.create(config.paths.run_dir)
    with logs_to(run.log):
        record_start(config, run, contract_differences=differences)
        return fit(config, run, checkpoint=None)


def share_run_directory(config: DictConfig) -> None:
    """Under torchrun each process names a directory after its own time: all take the first's."""
    own = config.paths.run_dir
    config.paths.run_dir = agreed_with_first(own)
    if config.paths.run_dir != own:
        with contextlib.suppress(OSError):
            Path(own).rmdir()


def fit(config: DictConfig, run: RunDirectory, *, checkpoint: Path | None) -> dict[str, float]:
    """Trains, from the start or from `checkpoint`, and writes what the run directory is to hold."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    parts = build_model_parts(config)
    datamodule = build_datamodule(config, parts)
    evaluator = build_evaluator(config)
    module = build_module(config, parts, datamodule)
    saving = ModelSaving(
        partial(
            save_trained_model, config, run.model, factory=parts.factory, tokenizer=parts.tokenizer
        )
    )
    reports: list[Report] = []
    evaluation = None
    if evaluator is not None:
        reports = first_reports(config, evaluator, run, is_resumed=checkpoint is not None)
        evaluation = build_evaluation(config, parts, evaluator, run, reports)
    losses = LossHistory()
    with built_loggers(config, hyperparameters=stored_hyperparameters(run)) as loggers:
        callbacks = [*build_named(config.callbacks), losses, RNGState()]
        trainer = build_trainer(
            config,
            callbacks=[*callbacks, *([] if evaluation is None else [evaluation]), saving],
            loggers=loggers,
            accumulate_grad_batches=datamodule.num_batches_per_update,
        )
        with ends_children(trainer.strategy):
            trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
        if reports and reports[-1].retriever != "trained":  # the checkpoint was the last
            trainer.test(module, one_empty_batch(), verbose=False)
        if not saving.has_saved:
            save_finished(config, run, parts, module)
        if evaluator is None or evaluation is None:
            last = trainer.callback_metrics.get("train/loss")
            return finish_unevaluated(None if last is None else float(last), run=run)
        reports.append(hybrid_report(evaluator, reports))
        return finish(reports, evaluator, evaluation, losses, run=run, loggers=loggers)


def build_module(
    config: DictConfig, parts: ModelParts, datamodule: RetrievalDataModule
) -> RetrievalModule:
    """What is trained, and how long."""
    num_steps = datamodule.num_training_steps(
        max_epochs=config.trainer.max_epochs, max_steps=config.trainer.max_steps
    )
    num_texts_per_update = config.data.num_queries_per_update * (2 + config.data.num_hard_negatives)
    return RetrievalModule(
        build_model=parts.factory.build,
        loss=build(config.loss),
        optimizer=build_optimizer(config),
        scheduler=build(config.scheduler),
        num_training_steps=num_steps,
        num_training_texts=num_steps * num_texts_per_update,
        num_tokens_per_chunk=config.data.num_tokens_per_chunk,
    )


def save_finished(
    config: DictConfig, run: RunDirectory, parts: ModelParts, module: RetrievalModule
) -> None:
    """Saves the model of a run that was resumed after its last update."""
    if is_spread(module):  # and what was in shards is gone with the trainer
        world.first_does(partial(save_from_checkpoint, config, run, parts))
    else:
        save_trained_model(
            config, run.model, factory=parts.factory, model=module.model, tokenizer=parts.tokenizer
        )


def stored_hyperparameters(run: RunDirectory) -> dict[str, Any]:
    """What loggers are told; the first process alone has loggers."""
    if not world.is_launched_first():
        return {}
    stored = OmegaConf.to_container(OmegaConf.load(run.resolved_config))
    assert isinstance(stored, dict)
    return {str(key): value for key, value in stored.items()}


def first_reports(
    config: DictConfig, evaluator: Evaluator, run: RunDirectory, *, is_resumed: bool
) -> list[Report]:
    """The baseline's, and what a resumed run knew of the untrained model."""
    reports = [evaluator.evaluate(build(config.baseline))]
    return [*reports, stored_report(evaluator, run, "untrained")] if is_resumed else reports


def build_evaluation(
    config: DictConfig,
    parts: ModelParts,
    evaluator: Evaluator,
    run: RunDirectory,
    reports: list[Report],
) -> RetrievalEvaluation:
    """The callback that adds to `reports` what is measured before and after training."""
    return RetrievalEvaluation(
        evaluator=evaluator,
        retriever=build(config.retriever),
        build_encoder=parts.encoder_builder(
            max_tokens_per_batch=config.evaluation.max_tokens_per_batch
        ),
        every_n_steps=config.evaluation.every_n_steps,
        on_report=lambda report: keep_report(report, reports, run),
        name="trained",
    )


def finish_unevaluated(last_loss: float | None, *, run: RunDirectory) -> dict[str, float]:
    """Where to find a model that nobody measured; returns the training loss of its last update."""
    summary = {} if last_loss is None else {"train/loss": last_loss}
    shown = "unknown" if last_loss is None else f"{last_loss:.4f}"
    if world.is_launched_first():
        show(f"Run directory: {run.path}", result_line=f"loss={shown}")
    return summary


def build_datamodule(config: DictConfig, parts: ModelParts) -> RetrievalDataModule:
    """The training data, cut into contrast sets."""
    data = config.data
    loss_contrast = config.loss.get("num_contrast_queries")
    return RetrievalDataModule(
        examples=build(data.examples),
        tokenizer=parts.tokenizer,
        num_hard_negatives=data.num_hard_negatives,
        num_queries_per_update=data.num_queries_per_update,
        num_contrast_queries=loss_contrast or data.num_queries_per_update,
        num_workers=data.num_workers,
        seed=config.seed,
    )


def keep_report(report: Report, reports: list[Report], run: RunDirectory) -> None:
    """Notes a report, and writes it now: a run that is killed must find it again."""
    reports.append(report)
    write_report([report], run.path, merge=True)


def stored_report(evaluator: Evaluator, run: RunDirectory, name: str) -> Report:
    """The report of that name, scored anew from the run files of an earlier process."""
    paths = [run_path(run.path, set_name=s.name, retriever=name) for s in evaluator.benchmark.sets]
    return evaluator.score_all([read_run(path) for path in paths], name=name)


def hybrid_report(evaluator: Evaluator, reports: Sequence[Report]) -> Report:
    """The first (the baseline) and the last (the trained model), fused by reciprocal rank."""
    pairs = zip(reports[0].results, reports[-1].results, strict=True)
    fused = [
        reciprocal_rank_fusion([sparse.run, dense.run], top_k=evaluator.top_k)
        for sparse, dense in pairs
    ]
    return evaluator.score_all(fused, name="hybrid")


def finish(
    reports: Sequence[Report],
    evaluator: Evaluator,
    evaluation: RetrievalEvaluation,
    losses: LossHistory,
    *,
    run: RunDirectory,
    loggers: Sequence[Logger],
) -> dict[str, float]:
    """Report, plots and the result line; returns `<retriever>/<set>/<measure>` -> value."""
    main = evaluator.measures[0]
    write_report(reports, run.path, measures=evaluator.measures, merge=True)
    plot_bars(reports, run.path / "plots" / "results.png", measures=evaluator.measures)
    plot_learning_curve(
        evaluation.history,
        run.path / "plots" / "learning_curve.png",
        baselines={report.retriever: report.mean(main) for report in reports[:2]},
        losses=losses.points,
        measure=main,
    )
    summary = {
        f"{report.retriever}/{key.removeprefix('val/')}": value
        for report in reports
        for key, value in metric_values(report).items()
    }
    for pl_logger in loggers:
        pl_logger.log_metrics(summary)
    show(
        terminal_table(reports, measures=evaluator.measures),
        f"Run directory: {run.path}",
        result_line=result_line(reports, main),
    )
    return summary
