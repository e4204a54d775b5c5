"""Trains a bi-encoder and reports on it: before, during, after, and beside its baselines."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from quarry.config.instantiate import build, build_named
from quarry.config.validation import validate
from quarry.data.datamodule import RetrievalDataModule, one_empty_batch
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.plots import plot_bars, plot_learning_curve
from quarry.evaluation.report import result_line, terminal_table, write_report
from quarry.evaluation.run_directory_files import read_reports, run_path
from quarry.metrics.run_files import read_run
from quarry.retrieval.fusion import reciprocal_rank_fusion
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.evaluation_encoder import unique_encoder_builder
from quarry.tasks.failed_sets import comparable, refuse_failures
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
from quarry.tasks.saving import save_trained_model
from quarry.training.callbacks.loss_history import LossHistory
from quarry.training.callbacks.retrieval_evaluation import RetrievalEvaluation, metric_values
from quarry.training.callbacks.rng_state import RNGState
from quarry.training.module import RetrievalModule
from quarry.types import Report

logger = logging.getLogger(__name__)


def train(config: DictConfig) -> dict[str, float]:
    """Runs a training job from the start; returns the final metrics by name."""
    quiet_libraries()
    validate(config, primary="train")
    differences = settle_contract(config)
    preflight(build(config.model), is_trained=True)
    run = RunDirectory.create(config.paths.run_dir)
    with logs_to(run.log):
        record_start(config, run, contract_differences=differences)
        return fit(config, run, checkpoint=None)


def fit(config: DictConfig, run: RunDirectory, *, checkpoint: Path | None) -> dict[str, float]:
    """Trains, from the start or from `checkpoint`, and writes what the run directory is to hold."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    parts = build_model_parts(config)
    datamodule = build_datamodule(config, parts)
    evaluator = build_evaluator(config)
    if evaluator is not None:
        evaluator.benchmark.load()  # bad data must not be found after hours of training
    num_training_steps = datamodule.num_training_steps(
        max_epochs=config.trainer.max_epochs, max_steps=config.trainer.max_steps
    )
    num_texts_per_update = config.data.num_queries_per_update * (2 + config.data.num_hard_negatives)
    module = RetrievalModule(
        build_model=parts.factory.build,
        loss=build(config.loss),
        optimizer=build(config.optimizer),
        scheduler=build(config.scheduler),
        num_training_steps=num_training_steps,
        num_training_texts=num_training_steps * num_texts_per_update,
        num_tokens_per_chunk=config.data.num_tokens_per_chunk,
    )
    reports: list[Report] = []
    evaluation = None
    if evaluator is not None:
        reports = first_reports(config, evaluator, run, is_resumed=checkpoint is not None)
        evaluation = build_evaluation(config, parts, evaluator, run, reports)
    losses = LossHistory()
    hyperparameters = OmegaConf.to_container(OmegaConf.load(run.resolved_config))
    with built_loggers(config, hyperparameters=hyperparameters) as loggers:  # type: ignore[arg-type]
        callbacks = [*build_named(config.callbacks), losses, RNGState()]
        trainer = build_trainer(
            config,
            callbacks=callbacks if evaluation is None else [*callbacks, evaluation],
            loggers=loggers,
            accumulate_grad_batches=datamodule.num_batches_per_update,
        )
        trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
        if reports and reports[-1].retriever != "trained":  # the checkpoint was the last
            trainer.test(module, one_empty_batch(), verbose=False)
        save_trained_model(
            config, run.model, factory=parts.factory, model=module.model, tokenizer=parts.tokenizer
        )
        if evaluator is None or evaluation is None:
            last = trainer.callback_metrics.get("train/loss")
            return finish_unevaluated(None if last is None else float(last), run=run)
        reports.append(hybrid_report(evaluator, reports))
        summary = finish(reports, evaluator, evaluation, losses, run=run, loggers=loggers)
    refuse_failures(reports, run)
    return summary


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
        build_encoder=unique_encoder_builder(config, parts),
        every_n_steps=config.evaluation.every_n_steps,
        on_report=lambda report: keep_report(report, reports, run),
        name="trained",
    )


def finish_unevaluated(last_loss: float | None, *, run: RunDirectory) -> dict[str, float]:
    """Where to find a model that nobody measured; returns the training loss of its last update."""
    summary = {} if last_loss is None else {"train/loss": last_loss}
    shown = "unknown" if last_loss is None else f"{last_loss:.4f}"
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
    failures = {
        set_name: reason
        for report in read_reports(run.path)
        if report.retriever == name
        for set_name, reason in report.failures.items()
    }
    results = [
        evaluator.score(read_run(run_path(run.path, set_name=s.name, retriever=name)), s)
        for s in evaluator.benchmark.sets
        if s.name not in failures
    ]
    return Report(retriever=name, results=tuple(results), failures=failures)


def hybrid_report(evaluator: Evaluator, reports: Sequence[Report]) -> Report:
    """The first (the baseline) and the last (the trained model), fused by reciprocal rank."""
    sparse, dense = (
        {r.name: r.run for r in report.results} for report in (reports[0], reports[-1])
    )
    results = [
        evaluator.score(
            reciprocal_rank_fusion([sparse[s.name], dense[s.name]], top_k=evaluator.top_k), s
        )
        for s in evaluator.benchmark.sets
        if s.name in sparse and s.name in dense
    ]
    failures = {**reports[0].failures, **reports[-1].failures}
    return Report(retriever="hybrid", results=tuple(results), failures=failures)


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
        result_line=result_line(comparable(reports), main),
    )
    return summary
