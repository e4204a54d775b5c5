"""Evaluates a model, or a baseline that needs none, on a benchmark."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from torch import Tensor

from quarry.config.instantiate import build
from quarry.config.validation import validate
from quarry.data.datamodule import one_empty_batch
from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.plots import plot_bars
from quarry.evaluation.report import result_line, terminal_table, write_report
from quarry.retrieval.retriever import Retriever
from quarry.runtime.files import write_json
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.dtype_comparison import (
    Agreement,
    EmbeddingSample,
    agreement_lines,
    agreements,
    as_document,
    in_plain_dtype,
)
from quarry.tasks.evaluation_encoder import stored_encoder_builder, unique_encoder_builder
from quarry.tasks.failed_sets import comparable, refuse_failures
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
    if config.evaluation.compare_dtype is not None and not retriever.uses_encoder:
        raise UserError(
            f"evaluation.compare_dtype={config.evaluation.compare_dtype} has no effect with "
            f"retriever={retriever.name}, which embeds nothing. Leave it out."
        )
    differences = {}
    if retriever.uses_encoder:
        differences = settle_contract(config)
        preflight(build(config.model), is_trained=False)
    run = RunDirectory.create(config.paths.run_dir)
    with logs_to(run.log):
        hyperparameters = record_start(config, run, contract_differences=differences)
        with built_loggers(config, hyperparameters=hyperparameters) as loggers:
            if retriever.uses_encoder:
                reports, found = evaluate_model(config, retriever, evaluator, loggers)
            else:
                reports, found = [evaluator.evaluate(retriever)], []
                for pl_logger in loggers:
                    pl_logger.log_metrics(metric_values(reports[0]))
        write_report(reports, run.path, measures=evaluator.measures)
        plot_bars(reports, run.path / "plots" / "results.png", measures=evaluator.measures)
        dtype = config.evaluation.compare_dtype
        if found:
            write_json(run.path / "dtype_comparison.json", as_document(found, dtype))
        show(
            terminal_table(reports, measures=evaluator.measures),
            *([agreement_lines(found, dtype)] if found else []),
            f"Run directory: {run.path}",
            result_line=result_line(comparable(reports), evaluator.measures[0]),
        )
    refuse_failures(reports, run)
    return metric_values(reports[0])


def evaluate_model(
    config: DictConfig, retriever: Retriever, evaluator: Evaluator, loggers: Sequence[Logger]
) -> tuple[list[Report], list[Agreement]]:
    """The model's report; with `evaluation.compare_dtype` also that of the same model in that
    dtype, and how far the embeddings agree."""
    report, embeddings = _test(config, retriever, evaluator, loggers)
    dtype = config.evaluation.compare_dtype
    if dtype is None:
        return [report], []
    other, references = _test(
        in_plain_dtype(config, dtype), retriever, evaluator, [], name=f"{report.retriever}-{dtype}"
    )
    return [report, other], agreements(embeddings, references)


def _test(
    config: DictConfig,
    retriever: Retriever,
    evaluator: Evaluator,
    loggers: Sequence[Logger],
    *,
    name: str | None = None,
) -> tuple[Report, dict[str, Tensor]]:
    """Loads the model and evaluates it through `Trainer.test`, so that devices and strategies work
    here as they do in training; embeddings are kept where they are to be compared."""
    parts = build_model_parts(config)
    is_stored = config.evaluation.store
    build_encoder = (stored_encoder_builder if is_stored else unique_encoder_builder)(config, parts)
    reports: list[Report] = []
    evaluation = RetrievalEvaluation(
        evaluator=evaluator,
        retriever=retriever,
        build_encoder=build_encoder,
        on_report=reports.append,
        name=name,
    )
    sample = EmbeddingSample(evaluator=evaluator, build_encoder=build_encoder, reports=reports)
    is_compared = config.evaluation.compare_dtype is not None
    callbacks = [evaluation, sample] if is_compared else [evaluation]
    trainer = build_trainer(config, callbacks=callbacks, loggers=loggers)
    module = RetrievalModule(build_model=partial(parts.factory.build, is_trained=False))
    trainer.test(module, one_empty_batch(), verbose=False)
    return reports[0], sample.embeddings
