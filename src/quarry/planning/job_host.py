"""Estimate the host memory of a job from its inputs alone: without data, weights and tokenizer."""

from __future__ import annotations

from dataclasses import replace

from quarry.errors import MissingPathError
from quarry.models.memory import FP32_BYTES, StateBytes, state_bytes
from quarry.models.remedies import CannotLoadError
from quarry.planning.host import HostNeed, host_need
from quarry.planning.inputs import PlannedJob
from quarry.planning.setup import PlannedModel, planned_model
from quarry.runtime.hub_access import from_cache_alone


def job_host(job: PlannedJob, *, host_bytes: int | None, num_jobs: int) -> HostNeed | None:
    """Return what a job takes on a node, at least; None: the shape of its model is not known.

    Corpora count by their published size.

    Args:
        host_bytes, num_jobs: see `host_need`.
    """
    try:
        with from_cache_alone():
            model = planned_model(job.spec)
    except CannotLoadError:  # the shape is neither published nor here
        return None
    states, on_host = _states(job, model)
    ranks = job.ranks.per_node
    return host_need(
        loading=ranks * states.weights,
        resident=ranks * (on_host if job.uses_gpu else on_host + states.total),
        num_documents=_largest_corpus(job),
        dim=model.embedding_dim,
        ranks_per_node=ranks,
        num_nodes=job.ranks.num_nodes,
        place=job.corpus,
        host_bytes=host_bytes,
        num_jobs=num_jobs,
    )


def _states(job: PlannedJob, model: PlannedModel) -> tuple[StateBytes, int]:
    """Return what a rank holds on its device, and the bytes offloaded to the host."""
    dtype = job.spec.options.torch_dtype(is_trained=job.is_training)
    is_beside = model.part.is_beside or not job.is_training
    num_trained = model.part.num_parameters if job.is_training else 0
    num_frozen = model.num_parameters - (0 if is_beside else num_trained)
    num_trained += model.num_projection if job.is_training else 0
    spread = job.ranks.spread

    def states(is_complete: bool) -> StateBytes:
        return state_bytes(
            num_frozen=num_frozen,
            num_trained=num_trained,
            frozen_itemsize=dtype.itemsize,
            trained_itemsize=FP32_BYTES if is_beside else dtype.itemsize,
            spread=replace(spread, weights=1, gradients=1, optimizer=1) if is_complete else spread,
        )

    own = states(is_complete=False)
    if not (job.ranks.offloads_parameters or job.ranks.offloads_optimizer):
        return own, 0
    return own, (states(is_complete=True).total - own.total) // job.ranks.world_size


def _largest_corpus(job: PlannedJob) -> int:
    """Return its number of documents, by published counts of the benchmark's sets."""
    try:
        evaluator = job.build_evaluator()
    except MissingPathError:
        return 0
    sets = () if evaluator is None else evaluator.benchmark.sets
    return max((one.expected.num_documents for one in sets if one.expected is not None), default=0)
