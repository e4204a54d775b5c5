"""Check the host memory of a sweep's jobs where they run here at once; ask SLURM for it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import psutil

from quarry.errors import UserError
from quarry.planning.host import HostNeed, host_reason, host_remedies
from quarry.planning.inputs import PlannedJob
from quarry.planning.job_host import job_host
from quarry.planning.page_rows import with_commands
from quarry.runtime.devices import planned_for_gpu

logger = logging.getLogger(__name__)

MARGIN = 1.1
"""Factor from the memory that the plan counts to what SLURM is asked for."""

RANK_GIB = 4
"""Added for each rank: Python, CUDA, the tokenizer, processes that prepare batches. An allowance,
not measured."""


def check_jobs_at_once(jobs: Sequence[PlannedJob | None], *, num_at_once: int) -> None:
    """Refuse jobs that run at once and take more memory than this machine's host has.

    Args:
        jobs: trainings and evaluations; None: not known, and not counted.

    Raises:
        UserError: with the overrides that would run.
    """
    available = psutil.virtual_memory().available
    needs: list[tuple[HostNeed, PlannedJob]] = []
    for job in jobs:
        need = None if job is None else job_host(job, host_bytes=available, num_jobs=num_at_once)
        if need is not None and job is not None:
            needs.append((need, job))
    if not needs:
        return
    largest, job = max(needs, key=lambda pair: pair[0].total)
    number = min(num_at_once, len(needs))
    together = sum(sorted((need.total for need, _ in needs), reverse=True)[:number])
    reason = host_reason(largest, host_bytes=available, num_jobs=number)
    if together <= available or reason is None:
        return
    remedies = host_remedies(
        largest,
        job.corpus,
        host_bytes=available,
        num_jobs=number,
        is_training=job.is_training,
        jobs_key="hydra.launcher.n_jobs",
    )
    raise UserError(with_commands([reason], remedies))


def slurm_memory_gib(jobs: Sequence[PlannedJob | None]) -> int | None:
    """Return what to ask of SLURM for the largest job; None: it is not known of some job.

    Args:
        jobs: trainings and evaluations; None: not known.
    """
    if not jobs:
        return None
    asked = [None if job is None else _slurm_gib(job) for job in jobs]
    known = [number for number in asked if number is not None]
    if len(known) < len(asked):
        logger.info("hydra.launcher.mem_gb stays null: what a job takes is not known here")
        return None
    logger.info("hydra.launcher.mem_gb=%d, from the plan of the jobs", max(known))
    return max(known)


def _slurm_gib(job: PlannedJob) -> int | None:
    with planned_for_gpu():
        need = job_host(job, host_bytes=None, num_jobs=1)
    if need is None:
        return None
    return math.ceil(MARGIN * need.total / 2**30) + RANK_GIB * job.ranks.per_node
