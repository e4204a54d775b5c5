"""One job of a sweep: its place in the study's record, its process, and what became of it."""

from __future__ import annotations

import logging
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from quarry.config.sweep_overrides import has_all_jobs_known, identity, job_name, key_of
from quarry.config.world_size import num_devices
from quarry.runtime.devices import visible_gpus
from quarry.runtime.provenance import scrub_argument
from quarry.runtime.run_directory import RunDirectory
from quarry.sweep.gpu_slots import gpu_locks, lent_gpus
from quarry.sweep.job_process import EndedProcess, run_process
from quarry.sweep.job_result import JOB_FILE, JobResult
from quarry.sweep.record import JobRecord, Study, StudyRecord

logger = logging.getLogger(__name__)

OF_THE_SWEEP = ("hydra.mode", "hydra.run", "hydra.sweep", "hydra.launcher", "hydra.callbacks")
"""Hydra's settings that are the sweep's business, not its jobs'; `hydra/sweeper` likewise."""

OF_HYDRA = "multirun.yaml"
"""Hydra's sweeper writes the whole configuration, secrets too; each job's own record hides them."""

INTERRUPTED_CODES = (130, 143)
"""Of a job that SIGINT or SIGTERM stopped."""

WORDS = ("null", "true", "false", "nan", "inf")
"""Texts that Hydra takes for something else."""


class JobFailedError(RuntimeError):
    """For sweepers that choose the next jobs by the last ones: this one has no value."""


def run_job(config: DictConfig, *, entry: Path) -> float | None:
    """Runs the job that Hydra has composed in a process of its own, unless it has run already.

    A job that fails is recorded, and the sweep goes on: without a value, or, for a sweeper that
    wants one, with an exception, which it takes for a failed trial.

    Raises:
        KeyboardInterrupt: this process was told to stop; the job is recorded as interrupted.
        JobFailedError: see above.
    """
    hydra = HydraConfig.get()
    record = StudyRecord((Path(hydra.runtime.cwd) / hydra.sweep.dir).absolute())
    (record.folder / OF_HYDRA).unlink(missing_ok=True)
    name = _register(record, [str(one) for one in hydra.overrides.task])
    with record.held(name):
        study = record.read()
        job = None if study is None else study.job(name)
        assert study is not None
        assert job is not None
        if job.status != "finished":
            job = _attempt(job, record, config, entry=entry, study_name=study.name)
    if job.status != "finished" and not has_all_jobs_known(hydra.sweeper):
        raise JobFailedError(f"{name}: {job.error or job.status}")
    return job.objective


def recorded(overrides: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """A job's overrides as they are written down."""
    return tuple(scrub_argument(one) for one in identity(overrides))


def _register(record: StudyRecord, overrides: list[str]) -> str:
    """The job's name; sweepers that choose as they go bring jobs that nobody knew of."""
    names: list[str] = []

    def registered(study: Study | None) -> Study:
        assert study is not None
        own = recorded(overrides)
        if (same := study.same_job(own)) is not None:
            names.append(same.directory)
            return study
        name = job_name(overrides, fixed=study.fixed)
        known = study.job(name)
        if known is not None and known.overrides != own:  # what is fixed was not all
            name = job_name(overrides, fixed=())
            known = study.job(name)
        names.append(name)
        if known is not None:
            return study
        return study.with_job(JobRecord(directory=name, overrides=own))

    record.change(registered)
    return names[0]


def _attempt(
    job: JobRecord, record: StudyRecord, config: DictConfig, *, entry: Path, study_name: str
) -> JobRecord:
    """Starts the job, or goes on with it; returns the record of how it ended."""
    folder = record.folder / job.directory
    is_resumed = job.attempts > 0 and RunDirectory(folder).checkpoint.exists()
    if job.attempts > 0 and not is_resumed:
        shutil.rmtree(folder, ignore_errors=True)
    (folder / JOB_FILE).unlink(missing_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    job = replace(job, status="running", error=None, started=now, attempts=job.attempts + 1)
    record.put(job)
    own = ["task=resume", f"run={quoted(str(folder))}"] if is_resumed else None
    told: dict[str, str | int] = {"study.name": study_name, "study.job": job.directory}
    if config.optimized_metric is not None:
        told["optimized_metric"] = config.optimized_metric
    told |= _jobs_at_once(config, record)
    command = job_command(entry, folder, told=told, overrides=own)
    logger.info("Job %s %s: %s", job.directory, "goes on" if is_resumed else "begins", folder)
    begin = time.monotonic()
    try:
        with _own_devices(config) as environment:
            ended = run_process(command, environment=environment)
    except BaseException as error:
        record.put(replace(job, status="interrupted", error=str(error) or None))
        raise
    job = _ended(replace(job, seconds=round(time.monotonic() - begin, 1)), ended, folder)
    record.put(job)
    logger.info("Job %s: %s after %.0f s", job.directory, job.status, job.seconds)
    if ended.stopped_by is not None:
        raise KeyboardInterrupt(ended.stopped_by)
    return job


def _jobs_at_once(config: DictConfig, record: StudyRecord) -> dict[str, int]:
    """What a plan has to know: how many jobs share the memory of this machine, unless stated."""
    from quarry.sweep.host_memory import num_jobs_at_once

    study = record.read()
    if OmegaConf.select(config, "task.num_jobs_at_once") != 1 or study is None:
        return {}
    number = num_jobs_at_once(HydraConfig.get().launcher, num_jobs=len(study.jobs))
    return {"task.num_jobs_at_once": number} if number > 1 else {}


def _ended(job: JobRecord, ended: EndedProcess, folder: Path) -> JobRecord:
    result = JobResult.read(folder)
    if ended.code == 0 and result is not None:
        return replace(job, status="finished", objective=result.objective, result=result.line)
    if ended.code in INTERRUPTED_CODES or ended.stopped_by is not None:
        return replace(job, status="interrupted")
    error = ended.error if ended.code else "it ended without a result"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "error.log").write_text(ended.tail, encoding="utf-8")
    return replace(job, status="failed", error=error)


def job_command(
    entry: Path, folder: Path, *, told: Mapping[str, str | int], overrides: list[str] | None
) -> list[str]:
    """The command line of a job. It ends in `hydra.mode=RUN`, or a study's file would make each of
    its jobs sweep again.

    Args:
        told: what the sweep tells its job, key -> value.
        overrides: instead of those of the job.
    """
    hydra = HydraConfig.get()
    command = [sys.executable, str(entry), "--config-name", str(hydra.job.config_name)]
    for source in hydra.runtime.config_sources:
        if source.provider == "main" and Path(source.path) != entry.parent / "conf":
            command += ["--config-path", str(source.path)]
        if source.provider == "command-line":
            command += ["--config-dir", str(source.path)]
    if overrides is None:
        overrides = list(identity([str(one) for one in hydra.overrides.task]))
    return [
        *command,
        *overrides,
        *(
            f"{key}={value if isinstance(value, int) else quoted(value)}"
            for key, value in told.items()
        ),
        *(one for one in hydra.overrides.hydra if not _is_of_the_sweep(str(one))),
        f"hydra.run.dir={quoted(str(folder))}",
        "hydra.mode=RUN",
    ]


def quoted(value: str) -> str:
    """As Hydra's grammar takes it for this very text."""
    is_plain = re.fullmatch(r"[A-Za-z/._-][A-Za-z0-9/._-]*", value) is not None
    if is_plain and value.lower() not in WORDS:
        return value
    # a backslash means something before a quote alone
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    return f'"{escaped}"'


def _is_of_the_sweep(override: str) -> bool:
    return key_of(override).replace("/", ".").startswith(OF_THE_SWEEP)


@contextmanager
def _own_devices(config: DictConfig) -> Iterator[dict[str, str]]:
    """What tells a job which GPUs are its own, where several run at once on one machine."""
    launcher = str(HydraConfig.get().launcher.get("_target_"))
    gpus = visible_gpus()
    if "joblib" not in launcher or config.trainer.accelerator == "cpu" or not gpus:
        yield {}
        return
    num = num_devices(config) or 1
    with lent_gpus(min(num, len(gpus)), gpus=gpus, folder=gpu_locks()) as lent:
        yield {"CUDA_VISIBLE_DEVICES": ",".join(lent)}
