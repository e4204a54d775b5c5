"""Run the task of a single run, or start a process for a job of a sweep; say how to continue a run
that a signal stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from quarry.assembly.places import check_places, places_of
from quarry.config.hidden_values import hide_values_of
from quarry.distributed import world
from quarry.errors import UserError
from quarry.runtime.disk_errors import explains_disk_errors
from quarry.runtime.interruption import raises_on_signals
from quarry.runtime.own_command import own_command
from quarry.runtime.run_directory import RunDirectory, removed_if_empty
from quarry.runtime.task_output import last_result_line
from quarry.sweep.job import run_job
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
                "study.resume=true has no effect outside a sweep: continue a training run with "
                f"{own_command('train')} task=resume run=RUN_DIR."
            )
        task, continued = config.task.get("_target_"), partial(how_to_continue, config)
        if task in (TRAIN, EVALUATE):
            check_places(config)
        explained = explains_disk_errors(partial(places_of, config), kept=continued)
        with raises_on_signals(continued), explained:
            result: object = instantiate(config.task)(config)
            if task in (TRAIN, RESUME, EVALUATE) and config.paths.get("max_cache_gib") is not None:
                from quarry.tasks.cache import shrink  # not above: it reads all kinds of caches

                shrink(config)
    if config.study.job is not None and world.is_launched_first():
        folder = Path(HydraConfig.get().runtime.output_dir)
        _result_of(result, metric=config.optimized_metric).write(folder)
    return result


def _result_of(result: object, *, metric: str | None) -> JobResult:
    """Return what a job leaves for its sweep.

    Args:
        result: of its task.
        metric: that the sweep optimizes; None: nothing.
    """
    metrics = dict(result) if isinstance(result, Mapping) else {}
    objective = None if metric is None else optimized_metric_of(metrics, metric)
    return JobResult(objective=objective, line=last_result_line(), metrics=metrics)


TRAIN, RESUME = "quarry.tasks.train.train", "quarry.tasks.resume.resume"
EVALUATE = "quarry.tasks.evaluate.evaluate"


def how_to_continue(config: DictConfig) -> str:
    """Return what is saved of the run that `config` describes, and the command that continues."""
    task = config.task.get("_target_")
    if task == RESUME:
        return f"Continue with: {own_command('train')} task=resume run={config.run}"
    if task == TRAIN:
        run = RunDirectory.shared(config.paths.run_dir)
        if run.checkpoint.exists():
            return f"Continue with: {own_command('train')} task=resume run={run.path}"
        return "There is no checkpoint yet: run the same command again, in a new run directory."
    if task == EVALUATE:
        retriever: Any = get_class(config.retriever["_target_"])
        if not retriever.uses_encoder:
            return "Run the same command again."
        return _about_the_store(Path(config.paths.store_dir) if config.evaluation.store else None)
    return "No file is half-written: run the same command again."


def _about_the_store(store: Path | None) -> str:
    if store is None:
        return "The same command starts again (evaluation.store=true would store embeddings)."
    return f"Embeddings so far are stored in {store}: the same command continues from there."
