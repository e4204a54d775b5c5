"""Train a bi-encoder; evaluate it before, during and after training, and its baseline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from quarry.assembly.early_checks import check_trainer, check_training_parts
from quarry.assembly.model_parts import build_model_parts, settle_contract
from quarry.assembly.preflight import preflight
from quarry.assembly.run_start import record_start, share_run_directory
from quarry.assembly.strategy import planned_spread, settle_dtype
from quarry.config.contract import explicit_keys
from quarry.config.instantiate import build
from quarry.config.overrides import warn_without_effect
from quarry.config.resume_command import resume_command
from quarry.config.validation import validate
from quarry.data.datamodule import one_empty_batch
from quarry.distributed import world
from quarry.distributed.launch import ends_children
from quarry.models.building import build_bi_encoder
from quarry.planning.run_disk import check_run_disk
from quarry.runtime.failed_start import removes_failed_start
from quarry.runtime.logging import logs_to, quiet_libraries
from quarry.runtime.ownership import begun_run
from quarry.runtime.run_directory import RunDirectory
from quarry.tasks.build_training import Evaluated, Training, build_training, check_callbacks
from quarry.tasks.run_card import write_model_card
from quarry.tasks.summary import refuse_failures, summary_of, write_summary
from quarry.tasks.training_reports import TRAINED, finish, finish_unevaluated
from quarry.training.evaluation_log import metric_values
from quarry.training.module import RetrievalModule
from quarry.training.trained_state import is_spread
from quarry.types import Report

logger = logging.getLogger(__name__)


def train(config: DictConfig) -> dict[str, float]:
    """Run a training job from the start; return the final metrics by name.

    Each rank calls it. Rank 0 does the checks that are needed once, and writes the run directory.
    """
    quiet_libraries()
    validate(config, primary="train")
    check_callbacks(config)
    check_trainer(config)
    check_training_parts(config)
    settled = settle_contract(config)
    settle_dtype(config)
    share_run_directory(config)
    run_dir = config.paths.run_dir
    if not world.is_launched_first():
        run = RunDirectory.shared(run_dir)
        return fit(build_training(config, run), checkpoint=None)
    preflight(build(config.model), is_trained=True, spread=planned_spread(config))
    build_model_parts(config)  # its errors come before there is a run directory
    check_run_disk(config)
    with (
        begun_run(run_dir, resume_command=resume_command(config, run_dir)) as run,
        removes_failed_start(run) as begins,
        logs_to(run.log),
    ):
        record_start(config, run, contract=settled)
        if build(config.benchmark) is None:
            names = ("before_training", "corpus_on_disk", "corpus_dtype")
            keys = [f"evaluation.{name}" for name in names]
            keys += [key for key in explicit_keys() if key.startswith("benchmark.")]
            warn_without_effect(keys, reason="benchmark=none, which evaluates nothing")
        return fit(build_training(config, run), checkpoint=None, begins=begins)


def fit(
    training: Training, *, checkpoint: Path | None, begins: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Train, from the start or from `checkpoint`; write the results into the run directory.

    Args:
        begins: called when all is read and built, before anything is scored or trained.
    """
    evaluated = training.evaluated
    if evaluated is not None:
        evaluated.evaluator.read(needs_all=True)  # now, not after hours of training
    with training.open_loggers() as loggers:
        trainer = training.build_trainer(loggers=loggers)
        begins()
        if evaluated is not None:
            evaluated.reports.begin(is_resumed=checkpoint is not None)
        with ends_children(trainer.strategy):
            trainer.fit(
                training.module, training.datamodule, ckpt_path=checkpoint, weights_only=True
            )
            if not training.saving.has_saved:  # resumed from the checkpoint of the last step
                module = saved_at_the_end(training)
                if evaluated is not None:
                    trainer.test(module, one_empty_batch(), verbose=False)
        if evaluated is None:
            return finished_unevaluated(training, trainer, loggers)
        if not world.is_launched_first():
            return metric_values(evaluated.reports.made[-1])
        values = finished(training, evaluated, loggers)
    refuse_failures(evaluated.reports.made, training.run)
    return values


def saved_at_the_end(training: Training) -> RetrievalModule:
    """Save the model of a run that was resumed after its last step; return it for a test."""
    saver, run = training.saver, training.run
    if not is_spread(training.module):
        saver.save(run.model, model=training.module.model)
        return training.module
    # sharded weights are gone after the trainer's teardown
    world.first_does(partial(saver.save_checkpoint, run))
    spec = saver.parts.spec
    saved = spec.saved_as(run.model, dtype=spec.options.dtype)
    return RetrievalModule(build_model=partial(build_bi_encoder, saved, is_trained=False))


def finished(
    training: Training, evaluated: Evaluated, loggers: Sequence[Logger]
) -> dict[str, float]:
    """Write, draw and show all reports on rank 0; return `<retriever>/<set>/<measure>` -> value."""
    best, run, reports = training.best, training.run, evaluated.reports
    summary_line = None if best is None else best.summary
    reports.end(has_best=summary_line is not None)
    values = finish(
        reports.made,
        evaluated.evaluator,
        evaluated.callback,
        training.losses,
        run=run,
        best=summary_line,
    )
    summary = _summary(training, reports.made, None)
    write_summary(summary, reports.made, run, loggers)
    return values


def finished_unevaluated(
    training: Training, trainer: pl.Trainer, loggers: Sequence[Logger]
) -> dict[str, float]:
    """Write the summary of a run without a benchmark; return its last training loss."""
    last = trainer.callback_metrics.get("train/loss")
    values = finish_unevaluated(None if last is None else float(last), run=training.run)
    summary = _summary(training, [], values)
    write_summary(summary, [], training.run, loggers)
    return values


def _summary(
    training: Training, reports: Sequence[Report], values: Mapping[str, float] | None
) -> dict[str, Any]:
    """Return the content of summary.json, and write the model card, on rank 0."""
    dataset = training.datamodule.dataset
    summary = summary_of(
        reports,
        values,
        of=TRAINED,
        cost=training.meter.cost(),
        caveats=dataset.caveats,
        training_data={
            "num_examples": len(dataset.examples),
            "digest": training.origin.get("training_data"),
        },
    )
    if world.is_launched_first():
        write_model_card(training.run, training.saver.parts, summary=summary)
    return summary
