"""Evaluates a model, or a baseline that needs none, on a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from torch import Tensor

from quarry.assembly.evaluation_encoder import stored_encoder_builder, unique_encoder_builder
from quarry.assembly.evaluation_parts import build_baseline, build_evaluator
from quarry.assembly.model_parts import build_model_parts, settle_contract
from quarry.assembly.preflight import preflight
from quarry.assembly.run_start import record_start, share_run_directory
from quarry.assembly.strategy import planned_spread
from quarry.assembly.trainer import build_trainer, built_loggers
from quarry.assembly.wandb_identity import identity_of
from quarry.config.instantiate import build
from quarry.config.overrides import warn_without_effect
from quarry.config.settled_contract import SettledContract
from quarry.config.validation import validate
from quarry.data.datamodule import one_empty_batch
from quarry.distributed import world
from quarry.distributed.launch import ends_children
from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.evaluation.plots import plot_bars
from quarry.evaluation.report import result_line, terminal_table, write_report
from quarry.evaluation.scatter import plot_scatter
from quarry.retrieval.retriever import Retriever
from quarry.runtime.files import write_json
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.task_output import show
from quarry.tasks.dtype_comparison import (
    Agreement,
    EmbeddingSample,
    agreement_lines,
    agreements,
    as_document,
    in_plain_dtype,
)
from quarry.tasks.optimized_metric import check_optimized_metric
from quarry.tasks.summary import refuse_failures, summary_of, write_summary
from quarry.training.callbacks.cost_meter import CostMeter
from quarry.training.callbacks.retrieval_evaluation import RetrievalEvaluation
from quarry.training.evaluation_log import log_report, metric_names, metric_values
from quarry.training.module import RetrievalModule
from quarry.types import Report


def evaluate(config: DictConfig) -> dict[str, float]:
    """Runs an evaluation job; returns `val/<set>/<measure>` -> value.

    Each process of a job of several comes through here; the first one writes the run directory.
    """
    quiet_libraries()
    validate(config, primary="eval")
    pl.seed_everything(config.seed, workers=True, verbose=False)
    retriever: Retriever = build(config.retriever)
    baseline = build_baseline(config, beside=retriever.name)
    evaluator = build_evaluator(config)
    if evaluator is None:
        raise UserError("benchmark=none leaves nothing to evaluate: choose another, see --help.")
    # refuses names that clash, too: not after hours of encoding
    check_optimized_metric(config.optimized_metric, metric_names(evaluator))
    meter = CostMeter(times=evaluator.times)
    if config.evaluation.compare_dtype is not None and not retriever.uses_encoder:
        raise UserError(
            f"evaluation.compare_dtype={config.evaluation.compare_dtype} has no effect with "
            f"retriever={retriever.name}, which embeds nothing. Leave it out."
        )
    settled = None
    if not retriever.uses_encoder:
        warn_of_a_store_without_effect(retriever.name)
    else:
        settled = settle_contract(config)
    share_run_directory(config)
    if not world.is_launched_first():
        if not retriever.uses_encoder:  # one process does it for all
            return {}
        reports, _ = evaluate_model(
            config, retriever, evaluator, [], None, meter=meter, contract=settled
        )
        return metric_values(reports[0])
    if retriever.uses_encoder:
        preflight(build(config.model), is_trained=False, spread=planned_spread(config))
        build_model_parts(config)  # what it refuses is refused before there is a run directory
    run = RunDirectory.create(config.paths.run_dir)
    with logs_to(run.log):
        hyperparameters = record_start(config, run, contract=settled)
        identity = identity_of(config, run, job_type="evaluate", has_model=retriever.uses_encoder)
        with built_loggers(config, identity=identity, hyperparameters=hyperparameters) as loggers:
            known = None if baseline is None else evaluator.evaluate(baseline)
            reports, found = evaluate_retriever(
                config, retriever, evaluator, loggers, known, meter=meter, contract=settled
            )
            values = metric_values(reports[0])
            of = reports[0].retriever
            reports = write_and_draw(reports, evaluator, run, baseline=known)
            summary = summary_of(reports, of=of, cost=meter.cost())
            write_summary(summary, reports, run, loggers)
        dtype = config.evaluation.compare_dtype
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


def warn_of_a_store_without_effect(retriever: str) -> None:
    """What the command line says of the embedding store means nothing without embeddings."""
    names = ("store", "store_dtype", "corpus_on_disk", "corpus_dtype")
    warn_without_effect(
        ["paths.store_dir", *(f"evaluation.{name}" for name in names)],
        reason=f"retriever={retriever}, which embeds nothing",
    )


def write_and_draw(
    reports: Sequence[Report], evaluator: Evaluator, run: RunDirectory, *, baseline: Report | None
) -> list[Report]:
    """Writes report and plots; returns the reports, the baseline's first, with intervals."""
    together = [*([] if baseline is None else [baseline]), *reports]
    known = list(write_report(together, run.path, measures=evaluator.measures))
    plot_bars(known, run.path / "plots" / "results.png", measures=evaluator.measures)
    if baseline is not None:
        main = evaluator.measures[0]
        plot_scatter(baseline, reports[0], run.path / "plots" / "queries.png", measure=main)
    return known


def evaluate_retriever(
    config: DictConfig,
    retriever: Retriever,
    evaluator: Evaluator,
    loggers: Sequence[Logger],
    baseline: Report | None,
    *,
    meter: CostMeter,
    contract: SettledContract | None,
) -> tuple[list[Report], list[Agreement]]:
    """Its report, logged; of a model also what `evaluate_model` adds."""
    if retriever.uses_encoder:
        return evaluate_model(
            config, retriever, evaluator, loggers, baseline, meter=meter, contract=contract
        )
    report = evaluator.evaluate(retriever)
    log_report(
        loggers,
        report,
        evaluator=evaluator,
        baseline=baseline,
        num_examples=config.evaluation.num_examples,
    )
    return [report], []


def evaluate_model(
    config: DictConfig,
    retriever: Retriever,
    evaluator: Evaluator,
    loggers: Sequence[Logger],
    baseline: Report | None,
    *,
    meter: CostMeter,
    contract: SettledContract | None,
) -> tuple[list[Report], list[Agreement]]:
    """The model's report; with `evaluation.compare_dtype` also that of the same model in that
    dtype, and how far the embeddings agree."""
    fed = {} if contract is None else contract.as_data()
    report, embeddings = _test(
        config, retriever, evaluator, loggers, baseline=baseline, meter=meter, contract=fed
    )
    dtype = config.evaluation.compare_dtype
    if dtype is None:
        return [report], []
    other, references = _test(
        in_plain_dtype(config, dtype),
        retriever,
        evaluator,
        [],
        name=f"{report.retriever}-{dtype}",
        meter=meter,
        contract=fed,
    )
    return [report, other], agreements(embeddings, references)


def _test(
    config: DictConfig,
    retriever: Retriever,
    evaluator: Evaluator,
    loggers: Sequence[Logger],
    *,
    meter: CostMeter,
    contract: Mapping[str, Any],
    name: str | None = None,
    baseline: Report | None = None,
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
        baseline=baseline,
        num_examples=config.evaluation.num_examples,
        contract=contract,
    )
    sample = EmbeddingSample(evaluator=evaluator, build_encoder=build_encoder, reports=reports)
    is_compared = config.evaluation.compare_dtype is not None
    callbacks = [meter, evaluation, *([sample] if is_compared else [])]
    trainer = build_trainer(config, callbacks=callbacks, loggers=loggers)
    module = RetrievalModule(build_model=partial(parts.factory.build, is_trained=False))
    with ends_children(trainer.strategy):
        trainer.test(module, one_empty_batch(), verbose=False)
    return reports[0], sample.embeddings
