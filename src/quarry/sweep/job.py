"""Run one job of a sweep in a process of its own, and record how it ended."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig

from quarry.config.sweep_overrides import identity, job_name
from quarry.errors import UserError
from quarry.runtime.devices import visible_gpus
from quarry.runtime.files import remove
from quarry.runtime.override_text import key_of, quoted
from quarry.runtime.ownership import owned
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.secret_values import scrub_argument, without_secrets
from quarry.runtime.shipped_files import conf_dir
from quarry.sweep.gpu_slots import gpu_locks, lent_gpus
from quarry.sweep.inputs import CommandLine, SweepJob, read_job
from quarry.sweep.job_process import EndedProcess, run_process
from quarry.sweep.job_result import JOB_FILE, JobResult
from quarry.sweep.launcher_files import OF_HYDRA
from quarry.sweep.record import JobRecord, Study, StudyRecord

logger = logging.getLogger(__name__)

OF_THE_SWEEP = ("hydra.mode", "hydra.run", "hydra.sweep", "hydra.launcher", "hydra.callbacks")
"""Hydra's settings of the sweep, which its jobs do not get; `hydra/sweeper` likewise."""

INTERRUPTED_CODES = (130, 143)
"""Exit codes of a job that SIGINT or SIGTERM stopped."""


class JobFailedError(RuntimeError):
    """Tell a sweeper that chooses jobs by the results of others that this one has none."""


def run_job(config: DictConfig, *, program: Sequence[str]) -> float | None:
    """Run the job that Hydra has composed in a process of its own, unless it has run already.

    A job that fails is recorded, and the sweep continues: without a value, or, for a sweeper that
    needs one, with an exception, which it takes for a failed trial.

    Raises:
        KeyboardInterrupt: this process was asked to stop; the job is recorded as interrupted.
        JobFailedError: see above.
    """
    own = read_job(config)
    record = StudyRecord(own.folder)
    (record.folder / OF_HYDRA).unlink(missing_ok=True)
    name = _register(record, own.command.overrides)
    with record.held(name):
        study = record.read()
        job = None if study is None else study.job(name)
        assert study is not None
        assert job is not None
        if job.status != "finished":
            job = _attempt(job, record, own, program=program, study=study)
    if job.status != "finished" and own.is_chosen:
        raise JobFailedError(f"{name}: {job.error or job.status}")
    return job.objective


def recorded(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return a job's overrides as they are recorded, without secrets."""
    return tuple(scrub_argument(one) for one in identity(overrides))


def _register(record: StudyRecord, overrides: Sequence[str]) -> str:
    """Return the job's name, and record the job if its sweeper has chosen it just now."""
    names: list[str] = []

    def registered(study: Study | None) -> Study:
        assert study is not None
        own = recorded(overrides)
        if (same := study.same_job(own)) is not None:
            names.append(same.directory)
            return study
        name = job_name(overrides, fixed=study.fixed)
        known = study.job(name)
        if known is not None and known.overrides != own:
            # fixed overrides changed since the study began: name the job by all of its own
            name = job_name(overrides, fixed=())
            known = study.job(name)
        names.append(name)
        if known is not None:
            return study
        return study.with_job(JobRecord(directory=name, overrides=own))

    record.change(registered)
    return names[0]


def _attempt(
    job: JobRecord, record: StudyRecord, own: SweepJob, *, program: Sequence[str], study: Study
) -> JobRecord:
    """Start the job, or continue it; return the record of how it ended."""
    folder = record.folder_of(job)
    is_resumed = job.attempts > 0 and RunDirectory(folder).has_checkpoint
    if job.attempts > 0 and not is_resumed:
        _clear(folder)
    (folder / JOB_FILE).unlink(missing_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    job = replace(job, status="running", error=None, started=now, attempts=job.attempts + 1)
    record.put(job)
    overrides = ["task=resume", f"run={quoted(str(folder))}"] if is_resumed else None
    settings = _settings(own, study, directory=job.directory)
    command = job_command(own.command, program, folder, settings=settings, overrides=overrides)
    logger.info("Job %s %s: %s", job.directory, "continues" if is_resumed else "begins", folder)
    begin = time.monotonic()
    try:
        with _own_devices(own.num_gpus) as environment:
            ended = run_process(command, environment=environment)
    except BaseException as error:
        record.put(replace(job, status="interrupted", error=without_secrets(str(error)) or None))
        raise
    job = _ended(replace(job, seconds=round(time.monotonic() - begin, 1)), ended, folder)
    record.put(job)
    logger.info("Job %s: %s after %.0f s", job.directory, job.status, job.seconds)
    if ended.stopped_by is not None:
        raise KeyboardInterrupt(ended.stopped_by)
    return job


def _clear(folder: Path) -> None:
    """Remove what an attempt left that has no checkpoint.

    Where another process works there, nothing is removed: the job will be refused, and say who.
    """
    run = RunDirectory(folder)
    with contextlib.suppress(UserError), owned(folder):
        if run.has_checkpoint:  # written meanwhile
            return
        for each in folder.iterdir():
            if each != run.lock:
                remove(each)


def _settings(
    own: SweepJob, study: Study, *, directory: str
) -> dict[str, str | int | tuple[str, ...]]:
    """Return the keys that a sweep sets in its job, and their values.

    A plan gets the number of jobs that share the memory of this machine, unless it is stated.
    """
    settings: dict[str, str | int | tuple[str, ...]] = {
        "study.name": study.name,
        "study.job": directory,
    }
    if own.trusted_packages:
        settings["trusted_packages"] = own.trusted_packages
    if own.optimized_metric is not None:
        settings["optimized_metric"] = own.optimized_metric
    number = own.launcher.num_jobs_at_once(len(study.jobs))
    if own.plans_alone and number > 1:
        settings["task.num_jobs_at_once"] = number
    return settings


def _ended(job: JobRecord, ended: EndedProcess, folder: Path) -> JobRecord:
    result = JobResult.read(folder)
    if ended.code == 0 and result is not None:
        return replace(job, status="finished", objective=result.objective, result=result.line)
    if ended.code in INTERRUPTED_CODES or ended.stopped_by is not None:
        return replace(job, status="interrupted")
    error = ended.error if ended.code else "it ended without a result"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "error.log").write_text(without_secrets(ended.tail), encoding="utf-8")
    return replace(job, status="failed", error=without_secrets(error))


def job_command(
    command: CommandLine,
    program: Sequence[str],
    folder: Path,
    *,
    settings: Mapping[str, str | int | tuple[str, ...]],
    overrides: list[str] | None,
) -> list[str]:
    """Return the command line of a job.

    It ends in `hydra.mode=RUN`, or a study's file would make each of its jobs sweep again.

    Args:
        command: of the sweep, with the overrides of the job.
        program: words that start the program.
        folder: the run directory of the job.
        settings: what the sweep sets in its job, key -> value.
        overrides: instead of those of the job.
    """
    words = [*program, "--config-name", command.config_name]
    for provider, path in command.sources:
        if provider == "main" and Path(path) != conf_dir():
            words += ["--config-path", path]
        if provider == "command-line":
            words += ["--config-dir", path]
    stated = (f"{key}={_stated(value)}" for key, value in settings.items())
    return [
        *words,
        *(identity(command.overrides) if overrides is None else overrides),
        *stated,
        *(one for one in command.hydra_overrides if not _is_of_the_sweep(one)),
        f"hydra.run.dir={quoted(str(folder))}",
        "hydra.mode=RUN",
    ]


def _stated(value: str | int | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(quoted, value))}]"
    return str(value) if isinstance(value, int) else quoted(value)


def _is_of_the_sweep(override: str) -> bool:
    return key_of(override).replace("/", ".").startswith(OF_THE_SWEEP)


@contextmanager
def _own_devices(num_gpus: int) -> Iterator[dict[str, str]]:
    """Yield the environment that gives a job GPUs of its own, where several run here at once.

    Args:
        num_gpus: that it needs; 0: it takes what is visible.
    """
    gpus = visible_gpus()
    if num_gpus == 0 or not gpus:
        yield {}
        return
    with lent_gpus(min(num_gpus, len(gpus)), gpus=gpus, folder=gpu_locks()) as lent:
        yield {"CUDA_VISIBLE_DEVICES": ",".join(lent)}
