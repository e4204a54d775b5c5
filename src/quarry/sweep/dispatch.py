"""Run the task of a single run, or start a process for a job of a sweep; say how to continue a run
that a signal stopped."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from quarry.assembly.places import check_places, places_of
from quarry.config.hidden_values import hide_values_of
from quarry.config.resume_command import resume_command
from quarry.config.stored_runs import RESUME, check_stored_run
from quarry.config.validation import validate
from quarry.distributed import world
from quarry.errors import UserError
from quarry.runtime.devices import planned_for_gpu
from quarry.runtime.disk_errors import explains_disk_errors
from quarry.runtime.interruption import raises_on_signals
from quarry.runtime.own_command import own_command
from quarry.runtime.run_directory import RunDirectory, removed_if_empty
from quarry.runtime.task_output import last_result_line
from quarry.sweep.job import run_job
from quarry.sweep.job_configs import primary_of
from quarry.sweep.job_result import JobResult
from quarry.tasks.optimized_metric import optimized_metric_of


def run(config: DictConfig, *, program: Sequence[str]) -> object:
    """Run the chosen task (conf/task) and return its result; in a sweep, start the job and return
    the value that the sweeper optimizes.

    Args:
        program: words that start this program again, see `restarted`.
    """
    hide_values_of(config)
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return run_job(config, program=program)
    with removed_if_empty(config.paths.run_dir):
        if config.study.resume:
            raise UserError(
                "study.resume=true: has no effect outside a sweep. Fix: leave it out"
                + (
                    f", or continue a run: {own_command('train')} task=resume run=RUN_DIR"
                    if "data" in config
                    else ""
                )
            )
        _validate(config)
        task, continued = config.task.get("_target_"), partial(how_to_continue, config)
        if task in (TRAIN, EVALUATE, MINE):
            check_places(config)
        explained = explains_disk_errors(partial(places_of, config), how_to_continue=continued)
        with raises_on_signals(continued), explained:
            result: object = instantiate(config.task)(config)
    if config.study.job is not None and world.is_launched_first():
        folder = Path(HydraConfig.get().runtime.output_dir)
        _result_of(result, metric=config.optimized_metric).write(folder)
    if task in (TRAIN, RESUME, EVALUATE, MINE) and config.paths.get("max_cache_gib") is not None:
        from quarry.tasks.cache import shrink  # not above: it reads all kinds of caches

        shrink(config)
    return result


def _validate(config: DictConfig) -> None:
    """Check the configuration before the task imports Lightning and transformers.

    Of a launcher's ranks on a node one tells what is wrong, and the others end without a word.
    A plan is checked as if for GPUs, and again when its machine is known.
    """
    task = str(config.task.get("_target_"))
    try:
        if task in PLANS:
            is_training = OmegaConf.select(config, "data") is not None
            with planned_for_gpu() if config.trainer.accelerator != "cpu" else nullcontext():
                validate(config, primary="train" if is_training else "eval", is_planned=True)
        elif (primary := primary_of(config)) is not None:
            validate(config, primary=primary)
        check_stored_run(config, task=task)
    except UserError:
        if world.repeats_the_first():
            sys.exit(0)  # Hydra would print the overrides of each rank
        raise


def _result_of(result: object, *, metric: str | None) -> JobResult:
    """Return what a job leaves for its sweep.

    Args:
        result: of its task.
        metric: that the sweep optimizes; None: nothing.
    """
    metrics = dict(result) if isinstance(result, Mapping) else {}
    objective = None if metric is None else optimized_metric_of(metrics, metric)
    return JobResult(objective=objective, line=last_result_line(), metrics=metrics)


PLANS = ("quarry.planning.plan_task.plan", "quarry.tasks.fetch.fetch")
"""Tasks that describe the run of another task, on a machine that need not be this one."""

TRAIN = "quarry.tasks.train.train"
EVALUATE = "quarry.tasks.evaluate.evaluate"
MINE = "quarry.tasks.mine.mine"
ENCODE = "quarry.tasks.encode.encode"


def how_to_continue(config: DictConfig) -> str:
    """Return what is saved of the run that `config` describes, and the command that continues."""
    task = config.task.get("_target_")
    if task == RESUME:
        return f"Continue with: {resume_command(config, config.run)}"
    if task == TRAIN:
        run = RunDirectory.shared(config.paths.run_dir)
        if run.has_checkpoint:
            return f"Continue with: {resume_command(config, run.path)}"
        return "There is no checkpoint yet: run the same command again, in a new run directory."
    if task == EVALUATE:
        retriever: Any = get_class(config.retriever["_target_"])
        if not retriever.uses_encoder:
            return "Run the same command again."
        return _about_the_store(Path(config.paths.store_dir) if config.evaluation.store else None)
    return _about_blocks(config) if task in (ENCODE, MINE) else NOTHING_HALF_WRITTEN


NOTHING_HALF_WRITTEN = "No file is half-written: run the same command again."


def _about_blocks(config: DictConfig) -> str:
    where = f" with hydra.run.dir={config.paths.run_dir}" if config.task["_target_"] == MINE else ""
    return f"Finished blocks are kept: the same command{where} continues from there."


def _about_the_store(store: Path | None) -> str:
    if store is None:
        return "The same command starts again (evaluation.store=true would store embeddings)."
    return f"Embeddings so far are stored in {store}: the same command continues from there."
