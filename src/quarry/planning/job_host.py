"""Host memory of a job, from its configuration alone: without data, weights and tokenizer."""

from __future__ import annotations

from dataclasses import replace

from omegaconf import DictConfig, OmegaConf

from quarry.assembly.evaluation_parts import build_evaluator
from quarry.assembly.strategy import planned_spread, settle_dtype
from quarry.config.instantiate import build
from quarry.config.world_size import num_processes
from quarry.errors import MissingPathError
from quarry.models.memory import FP32_BYTES, StateBytes, state_bytes
from quarry.models.model_spec import ModelSpec
from quarry.models.remedies import CannotLoadError
from quarry.planning.host import CorpusPlace, HostNeed, host_need
from quarry.planning.setup import PlannedModel, planned_model
from quarry.runtime.devices import has_gpu
from quarry.runtime.hub_access import from_cache_alone


def job_host(config: DictConfig, *, host_bytes: int | None, num_jobs: int) -> HostNeed | None:
    """Return what a training or an evaluation takes on a node, at least; None: not known.

    Not known are retrievers without a model, replicas that are made on the spot, and models whose
    shape is neither published nor here. Corpora count by their published size.

    Args:
        config: of the job; its dtype is settled here.
        host_bytes, num_jobs: see `host_need`.
    """
    if not build(config.retriever).uses_encoder:
        return None
    settle_dtype(config)
    spec: ModelSpec = build(config.model)
    if spec.source.path is None and spec.source.hub_id is None:
        return None
    try:
        with from_cache_alone():
            model = planned_model(spec)
    except CannotLoadError:
        return None
    is_training = OmegaConf.select(config, "data") is not None
    states, on_host = _states(config, spec, model, is_training=is_training)
    ranks = num_processes(config) // int(config.trainer.get("num_nodes", 1))
    is_stored = bool(config.evaluation.store)
    uses_gpu = has_gpu() and config.trainer.accelerator != "cpu"
    need = host_need(
        loading=ranks * states.weights,
        resident=ranks * (on_host if uses_gpu else on_host + states.total),
        num_documents=_largest_corpus(config),
        dim=model.embedding_dim,
        ranks_per_node=ranks,
        num_nodes=int(config.trainer.get("num_nodes", 1)),
        place=CorpusPlace.of(config.evaluation, is_stored=is_stored),
        host_bytes=host_bytes,
        num_jobs=num_jobs,
    )
    return replace(need, corpus_on_disk=0) if is_stored else need


def _states(
    config: DictConfig, spec: ModelSpec, model: PlannedModel, *, is_training: bool
) -> tuple[StateBytes, int]:
    """Return what a rank holds on its device, and the bytes offloaded to the host."""
    dtype = spec.options.torch_dtype(is_trained=is_training)
    is_beside = model.part.is_beside or not is_training
    num_trained = model.part.num_parameters if is_training else 0
    num_frozen = model.num_parameters - (0 if is_beside else num_trained)
    num_trained += model.num_projection if is_training else 0
    spread = planned_spread(config)

    def states(whole: bool) -> StateBytes:
        shared = replace(spread, weights=1, gradients=1, optimizer=1) if whole else spread
        return state_bytes(
            num_frozen=num_frozen,
            num_trained=num_trained,
            frozen_itemsize=dtype.itemsize,
            trained_itemsize=FP32_BYTES if is_beside else dtype.itemsize,
            spread=shared,
        )

    strategy = config.trainer.get("strategy")
    is_offloaded = isinstance(strategy, DictConfig) and (
        strategy.get("offload_parameters", False) or strategy.get("offload_optimizer", False)
    )
    own = states(whole=False)
    if not is_offloaded:
        return own, 0
    return own, (states(whole=True).total - own.total) // num_processes(config)


def _largest_corpus(config: DictConfig) -> int:
    """Return its number of documents, by published counts of the benchmark's sets."""
    try:
        evaluator = build_evaluator(config)
    except MissingPathError:
        return 0
    sets = () if evaluator is None else evaluator.benchmark.sets
    return max((one.expected.num_documents for one in sets if one.expected is not None), default=0)
