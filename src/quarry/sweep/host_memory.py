"""Host memory of a sweep's jobs: checked where they run here at once, asked for under SLURM."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence

import psutil
from omegaconf import DictConfig, open_dict, read_write

from quarry.config.world_size import num_processes
from quarry.errors import UserError
from quarry.planning.host import HostNeed, host_reason, host_remedies
from quarry.planning.job_host import job_host
from quarry.planning.plan_page import with_commands
from quarry.runtime.devices import planned_for_gpu

logger = logging.getLogger(__name__)

MARGIN = 1.1
"""What SLURM is asked for, times what the plan counts."""

RANK_GIB = 4
"""Beside it, for each rank: Python, CUDA, the tokenizer, processes that prepare batches. An
allowance, not measured."""


def num_jobs_at_once(launcher: DictConfig, *, num_jobs: int) -> int:
    """Return how many of so many jobs a launcher runs on this machine at once."""
    if "joblib" not in str(launcher.get("_target_")):
        return 1
    number = int(launcher.get("n_jobs") or 1)
    if number < 0:  # joblib's way to say all cores but some
        number = max(1, (os.cpu_count() or 1) + 1 + number)
    return min(number, max(1, num_jobs))


def check_jobs_at_once(config: DictConfig, jobs: Sequence[DictConfig]) -> None:
    """Refuse jobs that run at once and take more memory than this machine's host has.

    Args:
        config: of the sweep, with Hydra's part.
        jobs: the configurations of trainings and evaluations, without it.

    Raises:
        UserError: with the overrides that would run.
    """
    number = num_jobs_at_once(config.hydra.launcher, num_jobs=len(jobs))
    if number < 2:
        return
    available = psutil.virtual_memory().available
    needs: list[tuple[HostNeed, DictConfig]] = []
    for job in jobs:
        need = job_host(job, host_bytes=available, num_jobs=number)
        if need is not None:
            needs.append((need, job))
    if not needs:
        return
    largest, job = max(needs, key=lambda pair: pair[0].total)
    number = min(number, len(needs))
    together = sum(sorted((need.total for need, _ in needs), reverse=True)[:number])
    reason = host_reason(largest, host_bytes=available, num_jobs=number)
    if together <= available or reason is None:
        return
    remedies = host_remedies(
        largest,
        job.evaluation,
        host_bytes=available,
        num_jobs=number,
        is_training="data" in job,
        jobs_key="hydra.launcher.n_jobs",
    )
    raise UserError(with_commands([reason], remedies))


def settle_slurm_memory(config: DictConfig, jobs: Sequence[DictConfig]) -> None:
    """Set `hydra.launcher.mem_gb` to what the largest job takes, where it is null.

    It stays null, which is SLURM's own default, where the plan does not know it of some job.

    Args:
        config: of the sweep, with Hydra's part; changed.
        jobs: the configurations of trainings and evaluations, without it.
    """
    if config.hydra.launcher.get("mem_gb") is not None or not jobs:
        return
    asked = [_slurm_gib(job) for job in jobs]
    if any(number is None for number in asked):
        logger.info("hydra.launcher.mem_gb stays null: what a job takes is not known here")
        return
    number = max(number for number in asked if number is not None)
    logger.info("hydra.launcher.mem_gb=%d, from the plan of the jobs", number)
    with read_write(config), open_dict(config.hydra):
        config.hydra.launcher.mem_gb = number


def _ranks_per_node(job: DictConfig) -> int:
    return num_processes(job) // int(job.trainer.get("num_nodes", 1))


def _slurm_gib(job: DictConfig) -> int | None:
    """Return what to ask for one job; None: not known here."""
    if job.trainer.accelerator == "cpu":  # activations are there, too, and not counted here
        return None
    with planned_for_gpu():
        need = job_host(job, host_bytes=None, num_jobs=1)
    if need is None:
        return None
    return math.ceil(MARGIN * need.total / 2**30) + RANK_GIB * _ranks_per_node(job)
