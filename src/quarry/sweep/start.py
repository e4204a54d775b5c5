"""Check and record all that can be known of a sweep before its first job starts."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from quarry.config.dry_run import dry_run_violations
from quarry.config.sweep_overrides import job_name
from quarry.errors import UserError
from quarry.runtime.entry import end_with_error
from quarry.sweep.end import begun_study
from quarry.sweep.inputs import Sweep, read_sweep
from quarry.sweep.job import recorded
from quarry.sweep.job_configs import VALIDATED, JobConfigs, primary_of
from quarry.sweep.launcher_files import begun_folder, make_private_folder
from quarry.sweep.record import JobRecord, Study, StudyRecord
from quarry.tasks.optimized_metric import check_optimized_metric

logger = logging.getLogger(__name__)

FETCH = "quarry.tasks.fetch.fetch"

DECIDES_ON_METRICS = ("benchmark", "evaluation", "experiment", "task")
"""Keys that say what is measured, and by what."""


class StudyStart(Callback):
    """Check and record a sweep when Hydra says that it begins.

    Hydra turns what a callback raises into a warning, so a user's mistake ends the process here.
    """

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        begun_folder.set(Path(config.hydra.sweep.dir).absolute())
        try:
            if OmegaConf.select(config, "task._target_") == FETCH:
                fetch_for_jobs(read_sweep(config), JobConfigs(config))
                sys.exit(0)  # it has fetched for all jobs, and none is started
            record = begin(config)
            launcher = str(config.hydra.launcher.get("_target_"))
            make_private_folder(record.folder, launcher=launcher)
        except UserError as error:
            end_with_error(str(error))
        begun_study.set(record)
        logging.getLogger("alembic").setLevel(logging.WARNING)  # of Optuna: lists its parts
        signal.signal(signal.SIGTERM, _stop)


def fetch_for_jobs(sweep: Sweep, configs: JobConfigs) -> None:
    """Fetch what the jobs of a sweep read from the hub, all in this process.

    Raises:
        UserError: see `fetch.fetch_for`.
    """
    from quarry.tasks.fetch import fetch_for

    if sweep.jobs is not None:
        names = [" ".join(job) for job in sweep.jobs]
        fetch_for(dict(zip(names, configs.composed(sweep.jobs), strict=True)))
        return
    logger.warning(
        "%s: the sweeper chooses values by results; what is fetched is what the command reads "
        "without them",
        ", ".join(sweep.swept),
    )
    fetch_for({"": configs.base()})


def begin(config: DictConfig) -> StudyRecord:
    """Check the sweep, and write its record.

    Args:
        config: of the sweep, with Hydra's part; where SLURM's memory is not stated, it is set.

    Raises:
        UserError: jobs that would share a directory or cannot work, a study that was begun already,
            one to continue that had other jobs.
    """
    sweep, configs = read_sweep(config), JobConfigs(config)
    _check_process(sweep)
    record = StudyRecord(sweep.folder)
    jobs = _named_jobs(sweep)
    memory = _checked_memory(sweep, configs)
    if memory is not None:
        with read_write(config), open_dict(config.hydra):
            config.hydra.launcher.mem_gb = memory
    _check_dry_run(sweep, configs)
    _check_metric(sweep, configs)
    earlier = record.read()
    if earlier is not None and any(job.attempts for job in earlier.jobs):
        _check_earlier(sweep, record, earlier, jobs)
        return record
    if sweep.is_continued:
        logger.warning(
            "study.resume=true: %s was not begun yet, so all jobs start anew", sweep.folder
        )
    taken = [job.directory for job in jobs if (sweep.folder / job.directory).exists()]
    if taken:
        raise UserError(
            f"{sweep.folder} has {', '.join(taken)} already, and no {record.path.name} that knows "
            "of it: choose another hydra.sweep.dir, or move it away."
        )
    record.write(Study(name=sweep.name or sweep.folder.name, fixed=sweep.fixed, jobs=jobs))
    return record


def _check_process(sweep: Sweep) -> None:
    if "RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        raise UserError(
            "A sweep is started by one process: each job starts its own (trainer.devices). Run it "
            "without torchrun, DeepSpeed's launcher or srun; docs/studies.md has SLURM."
        )
    if sweep.jobs is None and sweep.repeated:
        raise UserError(
            f"{', '.join(sweep.repeated)}: the sweeper of this study does not take sweeps beside "
            "--multirun, which the study says itself. Leave --multirun out."
        )
    if sweep.subdir != ".":
        raise UserError(
            f"hydra.sweep.subdir={sweep.subdir} has no effect: jobs are named by their overrides, "
            "below hydra.sweep.dir. Leave it out."
        )
    if sweep.num_nodes > 1:
        raise UserError(
            f"trainer.num_nodes={sweep.num_nodes}: a job of a sweep runs on one node. Start runs "
            "of several nodes one by one, see docs/distributed.md."
        )
    if sweep.optimized_metric is None and sweep.jobs is None:
        raise UserError(
            "optimized_metric is not set, and hydra/sweeper chooses jobs by it: "
            "optimized_metric=SET/MEASURE or mean/MEASURE, such as mean/ndcg_at_10."
        )


def _named_jobs(sweep: Sweep) -> tuple[JobRecord, ...]:
    """Return the jobs that are known, each with a directory of its own."""
    if sweep.jobs is None:
        return ()
    if not sweep.jobs:
        raise UserError("The sweep has no jobs: a key has no values.")
    jobs = tuple(
        JobRecord(directory=job_name(job, fixed=sweep.fixed), overrides=recorded(job))
        for job in sweep.jobs
    )
    names = Counter(job.directory for job in jobs)
    if twice := [name for name, number in names.items() if number > 1]:
        raise UserError(
            f"Several jobs would share a directory: {', '.join(twice)}. Give each value once."
        )
    return jobs


def _checked_memory(sweep: Sweep, configs: JobConfigs) -> int | None:
    """Validate the jobs that run on this machine; return what to ask of SLURM for the others.

    Returns:
        GiB of a job; None: the launcher is another, the memory is stated, or it is not known.

    Raises:
        UserError: a job cannot work, or jobs at once take more memory than there is.
    """
    if sweep.launcher.is_slurm:
        from quarry.sweep.host_memory import slurm_memory_gib

        if sweep.launcher.has_memory:
            return None
        return slurm_memory_gib(configs.planned_for_slurm(sweep.jobs or ((),)))
    if sweep.jobs is None:
        return None
    checked = configs.validated(sweep.jobs)
    num_at_once = sweep.launcher.num_jobs_at_once(len(checked))
    if num_at_once > 1:
        from quarry.planning.inputs import planned_job  # slow: a refusal does without
        from quarry.sweep.host_memory import check_jobs_at_once

        check_jobs_at_once([planned_job(job) for job in checked], num_at_once=num_at_once)
    return None


def _check_dry_run(sweep: Sweep, configs: JobConfigs) -> None:
    """Refuse dry runs that cannot work where a sweeper chooses the jobs; others are validated."""
    base = configs.base()
    if sweep.jobs is not None or primary_of(base) != "train":
        return
    if violations := list(dry_run_violations(base)):
        raise UserError("\n".join(violations))


def _check_metric(sweep: Sweep, configs: JobConfigs) -> None:
    """Refuse an `optimized_metric` that no job will have, where all jobs measure the same.

    Jobs of other sweeps check it themselves.
    """
    from quarry.assembly.evaluation_parts import build_evaluator
    from quarry.training.evaluation_log import metric_names

    metric = sweep.optimized_metric
    is_same = not any(key.startswith(DECIDES_ON_METRICS) for key in sweep.swept)
    if metric is None or not is_same or sweep.task not in VALIDATED:
        return
    evaluator = build_evaluator(configs.base())
    check_optimized_metric(metric, [] if evaluator is None else metric_names(evaluator))


def _check_earlier(
    sweep: Sweep, record: StudyRecord, earlier: Study, jobs: Sequence[JobRecord]
) -> None:
    """Refuse to continue a study that was begun unless that is asked for, with the same jobs."""
    num_finished = len(earlier.having("finished"))
    if not sweep.is_continued:
        raise UserError(
            f"{record.folder} holds a study already, {num_finished} of {len(earlier.jobs)} jobs "
            f"finished. Continue it: study.resume=true hydra.sweep.dir={record.folder}. Or "
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
