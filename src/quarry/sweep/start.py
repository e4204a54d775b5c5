"""Before a sweep starts its first job: what can be known of all of them is checked and recorded."""

from __future__ import annotations

import copy
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from quarry.config.sweep_overrides import (
    all_jobs,
    fixed_keys,
    has_all_jobs_known,
    job_name,
    swept_keys,
    twice_given,
)
from quarry.errors import UserError
from quarry.runtime.entry import end_with_error
from quarry.sweep.end import begun_study
from quarry.sweep.job import recorded
from quarry.sweep.record import JobRecord, Study, StudyRecord
from quarry.tasks.optimized_metric import check_optimized_metric

logger = logging.getLogger(__name__)

DECIDES_ON_METRICS = ("benchmark", "evaluation", "experiment", "task")
"""Keys that say what is measured, and by what."""

VALIDATED = {"quarry.tasks.train.train": "train", "quarry.tasks.evaluate.evaluate": "eval"}
"""Tasks whose configuration is checked for every job, with their primary."""


class StudyStart(Callback):
    """Hydra tells it that a sweep begins. (Of what a callback raises Hydra makes a warning, so a
    user's mistake ends the process here.)"""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            if fetches(config):
                fetch_for_jobs(config)
                sys.exit(0)  # it has fetched for all jobs, and none is started
            record = begin(config)
        except UserError as error:
            end_with_error(str(error))
        begun_study.set(record)
        logging.getLogger("alembic").setLevel(logging.WARNING)  # of Optuna: says what it is made of
        signal.signal(signal.SIGTERM, _stop)


def fetches(config: DictConfig) -> bool:
    """Return whether the task of a sweep is task=fetch."""
    from quarry.tasks.fetch import TARGET

    return str(OmegaConf.select(config, "task._target_")) == TARGET


def fetch_for_jobs(config: DictConfig) -> None:
    """Fetch what the jobs of a sweep read from the hub, all in this process.

    Raises:
        UserError: see `fetch.fetch_for`.
    """
    from quarry.tasks.fetch import fetch_for

    if has_all_jobs_known(config.hydra.sweeper):
        jobs = all_jobs(config)
        names = [" ".join(job) for job in jobs]
        fetch_for(dict(zip(names, _composed(config, jobs), strict=True)))
        return
    logger.warning(
        "%s: values are chosen as the sweep goes; what is fetched is what the command reads "
        "without them",
        ", ".join(swept_keys(config)),
    )
    fetch_for({"": _as_in_a_job(config)})


def begin(config: DictConfig) -> StudyRecord:
    """Checks the sweep, and writes its record.

    Raises:
        UserError: jobs that would share a directory or cannot work, a study that was begun already,
            one to go on with that had other jobs.
    """
    _check_process(config)
    folder = Path(config.hydra.sweep.dir).absolute()
    record = StudyRecord(folder)
    fixed = fixed_keys(config)
    jobs: tuple[JobRecord, ...] = ()
    if has_all_jobs_known(config.hydra.sweeper):
        jobs = _named_jobs(config, fixed)
    elif _is_slurm(config):
        _settle_memory(config, [()])
    _check_metric(config)
    earlier = record.read()
    if earlier is not None and any(job.attempts for job in earlier.jobs):
        _check_earlier(config, record, earlier, jobs)
        return record
    if config.study.resume:
        logger.warning("study.resume=true: %s was not begun yet, so all jobs start anew", folder)
    taken = [job.directory for job in jobs if (folder / job.directory).exists()]
    if taken:
        raise UserError(
            f"{folder} has {', '.join(taken)} already, and no {record.path.name} that knows of it: "
            "choose another hydra.sweep.dir, or move it away."
        )
    record.write(Study(name=config.study.name or folder.name, fixed=fixed, jobs=jobs))
    return record


def _check_process(config: DictConfig) -> None:
    if "RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        raise UserError(
            "A sweep is started by one process: each job starts its own (trainer.devices). Run it "
            "without torchrun, DeepSpeed's launcher or srun; docs/studies.md has SLURM."
        )
    if not has_all_jobs_known(config.hydra.sweeper) and (keys := twice_given(config)):
        raise UserError(
            f"{', '.join(keys)}: the sweeper of this study does not take sweeps beside --multirun, "
            "which the study says itself. Leave --multirun out."
        )
    if config.hydra.sweep.subdir != ".":
        raise UserError(
            f"hydra.sweep.subdir={config.hydra.sweep.subdir} has no effect: jobs are named by "
            "their overrides, below hydra.sweep.dir. Leave it out."
        )
    if int(config.trainer.get("num_nodes", 1)) > 1:
        raise UserError(
            f"trainer.num_nodes={config.trainer.num_nodes}: a job of a sweep runs on one node. "
            "Start runs of several nodes one by one, see docs/distributed.md."
        )
    if config.optimized_metric is None and not has_all_jobs_known(config.hydra.sweeper):
        raise UserError(
            "optimized_metric is not set, and hydra/sweeper chooses jobs by it: "
            "optimized_metric=SET/MEASURE or mean/MEASURE, such as mean/ndcg_at_10."
        )


def _named_jobs(config: DictConfig, fixed: Sequence[str]) -> tuple[JobRecord, ...]:
    every = all_jobs(config)
    if not every:
        raise UserError("The sweep has no jobs: a key has no values.")
    jobs = tuple(
        JobRecord(directory=job_name(job, fixed=fixed), overrides=recorded(job)) for job in every
    )
    names = Counter(job.directory for job in jobs)
    if twice := [name for name, number in names.items() if number > 1]:
        raise UserError(
            f"Several jobs would share a directory: {', '.join(twice)}. Give each value once."
        )
    _validate_all(config, every)
    return jobs


def _validate_all(config: DictConfig, jobs: Sequence[Sequence[str]]) -> None:
    """Every job's configuration, where it runs on this machine: not after hours of others."""
    from quarry.config.validation import validate
    from quarry.sweep.host_memory import check_jobs_at_once

    if _is_slurm(config):
        _settle_memory(config, jobs)
        return
    checked: list[DictConfig] = []
    for job, composed in zip(jobs, _composed(config, jobs), strict=True):
        primary = _primary(composed)
        if primary is None:
            continue
        try:
            validate(composed, primary=primary)
        except UserError as error:
            raise UserError(f"The job {' '.join(job)}:\n{error}") from None
        checked.append(composed)
    check_jobs_at_once(config, checked)


def _settle_memory(config: DictConfig, jobs: Sequence[Sequence[str]]) -> None:
    """Asks SLURM for the memory that the jobs take, if nobody has stated it."""
    if config.hydra.launcher.get("mem_gb") is not None:
        return
    from quarry.sweep.host_memory import settle_slurm_memory

    composed = [job for job in _composed(config, jobs) if _primary(job) is not None]
    settle_slurm_memory(config, composed)


def _composed(config: DictConfig, jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """The configuration of every job, without Hydra's own part."""
    loader = GlobalHydra.instance().config_loader()
    return [_as_in_a_job(loader.load_sweep_config(config, list(job))) for job in jobs]


def _is_slurm(config: DictConfig) -> bool:
    return "slurm" in str(config.hydra.launcher.get("_target_")).lower()


def _check_metric(config: DictConfig) -> None:
    """Refuses an `optimized_metric` that no job will have, where all jobs measure the same; those
    of other sweeps see for themselves."""
    from quarry.assembly.evaluation_parts import build_evaluator
    from quarry.training.evaluation_log import metric_names

    metric, swept = config.optimized_metric, swept_keys(config)
    is_same = not any(key.startswith(DECIDES_ON_METRICS) for key in swept)
    if metric is None or not is_same or _primary(config) is None:
        return
    evaluator = build_evaluator(_as_in_a_job(config))
    check_optimized_metric(metric, [] if evaluator is None else metric_names(evaluator))


def _primary(config: DictConfig) -> str | None:
    """Whose configuration it is; None: of a task that is not checked."""
    return VALIDATED.get(str(OmegaConf.select(config, "task._target_")))


def _as_in_a_job(config: DictConfig) -> DictConfig:
    """A copy without Hydra's own part."""
    copied = copy.deepcopy(config)
    OmegaConf.set_struct(copied, False)
    del copied["hydra"]
    return copied


def _check_earlier(
    config: DictConfig, record: StudyRecord, earlier: Study, jobs: Sequence[JobRecord]
) -> None:
    """A study that was begun is gone on with if that is asked for, and if it is the same."""
    num_finished = len(earlier.having("finished"))
    if not config.study.resume:
        raise UserError(
            f"{record.folder} holds a study already, {num_finished} of {len(earlier.jobs)} jobs "
            f"finished. Go on with it: study.resume=true hydra.sweep.dir={record.folder}. Or "
            "choose another hydra.sweep.dir, or move it away."
        )
    if jobs:
        before = {job.directory: job.overrides for job in earlier.jobs}
        now = {(earlier.same_job(job.overrides) or job).directory: job.overrides for job in jobs}
        differ = [
            f"- {name}: {_shown(before.get(name))} before, {_shown(now.get(name))} now"
            for name in {**before, **now}
            if sorted(before.get(name) or ()) != sorted(now.get(name) or ())
        ]
        if differ:
            raise UserError(
                f"study.resume=true: the jobs are not those that {record.path} has. Use the "
                "command that it was begun with, or another hydra.sweep.dir.\n" + "\n".join(differ)
            )
    logger.info("%d of %d jobs are finished", num_finished, len(earlier.jobs))


def _shown(overrides: Sequence[str] | None) -> str:
    return "no such job" if overrides is None else " ".join(overrides) or "no overrides"


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)
