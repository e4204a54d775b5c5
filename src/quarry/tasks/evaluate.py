"""Evaluate a model, or a retriever without a model, on a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from torch import Tensor

from quarry.assembly.early_checks import check_trainer
from quarry.assembly.run_start import record_start, stored_hyperparameters
from quarry.assembly.trainer import opened_loggers
from quarry.assembly.wandb_identity import identity_of
from quarry.config.validation import validate
from quarry.data.datamodule import one_empty_batch
from quarry.distributed import world
from quarry.distributed.launch import ends_children
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.plots import plot_bars
from quarry.evaluation.report import result_line, terminal_table, write_report
from quarry.evaluation.scatter import plot_scatter
from quarry.retrieval.reranked import RerankedRetriever, stages_of
from quarry.runtime.extras import can_draw
from quarry.runtime.failed_start import removes_failed_start
from quarry.runtime.files import write_json
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.ownership import begun_run
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.task_output import show
from quarry.tasks.build_evaluation import Evaluation, TestedModel, build_evaluation
from quarry.tasks.dtype_comparison import (
    Agreement,
    EmbeddingSample,
    agreement_lines,
    agreements,
    as_document,
)
from quarry.tasks.summary import refuse_failures, summary_of, write_summary
from quarry.training.callbacks.retrieval_evaluation import RetrievalEvaluation
from quarry.training.evaluation_log import log_report, metric_values
from quarry.training.module import RetrievalModule
from quarry.types import Report

RERANKER_FILE = "reranker.json"
"""File of a run directory that says what its reranker is, and how many pairs it cut."""


def evaluate(config: DictConfig) -> dict[str, float]:
    """Run an evaluation job; return `val/<set>/<measure>` -> value.

    Each rank calls it. Rank 0 writes the run directory, and evaluates retrievers without a model
    alone.
    """
    quiet_libraries()
    validate(config, primary="eval")
    pl.seed_everything(config.seed, workers=True, verbose=False)
    check_trainer(config)
    evaluation = build_evaluation(config)
    if not world.is_launched_first():
        if evaluation.model is None:
            return {}
        reports, _ = measured(evaluation, [], baseline=None)
        return metric_values(reports[0])
    with (
        begun_run(config.paths.run_dir) as run,
        removes_failed_start(run) as begins,
        logs_to(run.log),
    ):
        record_start(config, run, contract=evaluation.contract)
        has_model = evaluation.model is not None
        open_loggers = partial(
            opened_loggers,
            config.logger,
            identity=identity_of(config, run, job_type="evaluate", has_model=has_model),
            hyperparameters=partial(stored_hyperparameters, run),
        )
        return evaluate_into(run, evaluation, open_loggers, begins=begins)


def evaluate_into(
    run: RunDirectory,
    evaluation: Evaluation,
    open_loggers: Callable[[], AbstractContextManager[list[Logger]]],
    *,
    begins: Callable[[], None],
) -> dict[str, float]:
    """Evaluate, write and show all results, on rank 0; return the model's metrics.

    Args:
        begins: called when a set is read and the loggers are open, before anything is scored.
    """
    evaluator, dtype = evaluation.evaluator, evaluation.reference_dtype
    evaluator.read(needs_all=False)
    with open_loggers() as loggers:
        begins()
        baseline = evaluation.baseline
        known = None if baseline is None else evaluator.evaluate(baseline)
        reports, found = measured(evaluation, loggers, baseline=known)
        values, of = metric_values(reports[0]), reports[0].retriever
        model, beside = reports[0], known
        if isinstance(evaluation.retriever, RerankedRetriever):
            reports, beside = [reports[1], model], reports[1]  # in the order of the stages
            write_json(run.path / RERANKER_FILE, evaluation.retriever.description())
        reports = write_and_draw(
            [*([] if known is None else [known]), *reports],
            evaluator,
            run,
            compared=None if beside is None else (beside, model),
        )
        summary = summary_of(reports, of=of, cost=evaluation.meter.cost())
        write_summary(summary, reports, run, loggers)
    if found:
        write_json(run.path / "dtype_comparison.json", as_document(found, dtype))
    show(
        terminal_table(reports, measures=evaluator.measures),
        *([agreement_lines(found, dtype)] if found else []),
        f"Run directory: {run.path}",
        result_line=result_line(reports, evaluator.measures[0]),
    )
    refuse_failures(reports, run)
    return values


def write_and_draw(
    reports: Sequence[Report],
    evaluator: Evaluator,
    run: RunDirectory,
    *,
    compared: tuple[Report, Report] | None,
) -> list[Report]:
    """Write report and plots; return the reports with confidence intervals.

    Without matplotlib there are no plots.

    Args:
        compared: the two whose queries are plotted against each other.
    """
    known = list(write_report(reports, run.path, measures=evaluator.measures))
    if not can_draw():
        return known
    plot_bars(known, run.path / "plots" / "results.png", measures=evaluator.measures)
    if compared is not None:
        main = evaluator.measures[0]
        plot_scatter(*compared, run.path / "plots" / "queries.png", measure=main)
    return known


def measured(
    evaluation: Evaluation, loggers: Sequence[Logger], *, baseline: Report | None
) -> tuple[list[Report], list[Agreement]]:
    """Evaluate and log; return the reports and the agreement with a reference, if there is one.

    The first report is the retriever's; that of its first stage follows, or that of the reference.

    Args:
        baseline: its report, for comparison in the loggers' tables.
    """
    evaluator, retriever = evaluation.evaluator, evaluation.retriever
    if evaluation.model is None:
        *before, last = stages_of(retriever)
        earlier = [evaluator.evaluate(stage) for stage in before]
        report = evaluator.evaluate(last)
        log_report(
            loggers,
            report,
            evaluator=evaluator,
            baseline=baseline or next(iter(earlier), None),
            num_examples=evaluation.num_examples,
        )
        return [report, *earlier], []
    reports, embeddings = _tested(evaluation, evaluation.model, loggers, baseline=baseline)
    if evaluation.reference is None:
        return reports, []
    others, references = _tested(evaluation, evaluation.reference, [], baseline=None)
    return [*reports, *others], agreements(embeddings, references)


def _tested(
    evaluation: Evaluation,
    model: TestedModel,
    loggers: Sequence[Logger],
    *,
    baseline: Report | None,
) -> tuple[list[Report], dict[str, Tensor]]:
    """Load a model and evaluate it through `Trainer.test`; return its reports, the main one first.

    Devices and strategies thus work as in training. The embeddings of the first texts are returned
    where they are compared with a reference's.
    """
    reports: list[Report] = []
    contract = evaluation.contract
    callback = RetrievalEvaluation(
        evaluator=evaluation.evaluator,
        retriever=evaluation.retriever,
        build_encoder=model.build_encoder,
        on_report=reports.append,
        name=model.name,
        baseline=lambda: baseline,
        num_examples=evaluation.num_examples,
        contract={} if contract is None else contract.as_data(),
    )
    sample = EmbeddingSample(
        evaluator=evaluation.evaluator, build_encoder=model.build_encoder, reports=reports
    )
    compared = [] if evaluation.reference is None else [sample]
    trainer = evaluation.build_trainer(
        callbacks=[evaluation.meter, callback, *compared], loggers=loggers
    )
    module = RetrievalModule(build_model=model.build_model)
    with ends_children(trainer.strategy):
        trainer.test(module, one_empty_batch(), verbose=False)
    return reports, sample.embeddings
