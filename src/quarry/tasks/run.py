"""What an entry point does with a composed configuration: a run does its task, a sweep starts a
process for each of its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig

from quarry.distributed import world
from quarry.errors import UserError
from quarry.runtime.interruption import raises_on_signals
from quarry.runtime.run_directory import removed_if_empty
from quarry.tasks.continuing import how_to_continue
from quarry.tasks.job_result import JobResult
from quarry.tasks.objective import objective_of
from quarry.tasks.output import last_result_line
from quarry.tasks.study_job import run_job


def run(config: DictConfig, *, entry: Path) -> object:
    """Runs the chosen task (conf/task) and returns its result, or, in a sweep, starts the job and
    returns what it is to be optimised by.

    Args:
        entry: the file of the entry point.
    """
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return run_job(config, entry=entry)
    with removed_if_empty(config.paths.run_dir):
        if config.study.resume:
            raise UserError(
                "study.resume=true has no effect outside a sweep: a training run goes on with "
                "python train.py task=resume run=RUN_DIR."
            )
        with raises_on_signals(lambda: how_to_continue(config)):
            result: object = instantiate(config.task)(config)
    if config.study.job is not None and world.is_launched_first():
        _leave_result(config, result)
    return result


def _leave_result(config: DictConfig, result: object) -> None:
    """For the sweep that this run is a job of."""
    metrics = dict(result) if isinstance(result, Mapping) else {}
    metric = config.optimized_metric
    objective = None if metric is None else objective_of(metrics, metric)
    folder = Path(HydraConfig.get().runtime.output_dir)
    JobResult(objective=objective, line=last_result_line(), metrics=metrics).write(folder)
