"""From a configuration to the plan of an evaluation."""

from __future__ import annotations

from dataclasses import replace

from omegaconf import DictConfig

from quarry.assembly.evaluation_parts import build_baseline, build_evaluator
from quarry.assembly.model_parts import settle_contract
from quarry.assembly.strategy import planned_spread
from quarry.config.instantiate import build
from quarry.config.world_size import num_processes, zero_stage
from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.models.factory import BiEncoderFactory
from quarry.models.memory import state_bytes
from quarry.planning.disk import download_bytes
from quarry.planning.encoding_rate import planned_encoding_rate
from quarry.planning.encoding_work import EncodingWork
from quarry.planning.evaluation_outcome import EvaluationPlan
from quarry.planning.evaluations import work_of
from quarry.planning.host import CorpusPlace, HostNeed, host_need
from quarry.planning.machine import Machine
from quarry.planning.setup import PlannedModel, planned_model
from quarry.planning.workload import local_tokenizer
from quarry.retrieval.retriever import Retriever


def make_evaluation_plan(
    config: DictConfig, machine: Machine, *, tokens_per_s: float | None, num_jobs: int = 1
) -> EvaluationPlan:
    """Plan without weights and network.

    Args:
        tokens_per_s: of one device; None: as measured.
        num_jobs: that run on the machine at once.

    Raises:
        UserError: there is nothing to evaluate, or no model of that shape is known.
    """
    retriever: Retriever = build(config.retriever)
    build_baseline(config, beside=retriever.name)
    if retriever.uses_encoder:
        settle_contract(config)
    evaluator = build_evaluator(config)
    if evaluator is None:
        raise UserError(
            "benchmark=none: there is nothing to evaluate. Fix: choose another, see --help."
        )
    if not retriever.uses_encoder:
        return _without_model(config, machine, evaluator, retriever=retriever.name)
    return _with_model(
        config,
        machine,
        evaluator,
        retriever=retriever.name,
        tokens_per_s=tokens_per_s,
        num_jobs=num_jobs,
    )


def _without_model(
    config: DictConfig, machine: Machine, evaluator: Evaluator, *, retriever: str
) -> EvaluationPlan:
    """Plan a retriever that embeds nothing."""
    return EvaluationPlan(
        retriever=retriever,
        machine=machine,
        model=None,
        dtype="",
        dim=0,
        work=work_of(config, evaluator, tokenizer=None, is_stored=False, shares_prefix=False),
        num_passes=0,
        rate=None,
        weights=0,
        store_dtype=None,
        download=0,
        host=HostNeed(loading=0),
        num_processes=num_processes(config),
        num_nodes=int(config.trainer.get("num_nodes", 1)),
        num_jobs=1,
    )


def _with_model(
    config: DictConfig,
    machine: Machine,
    evaluator: Evaluator,
    *,
    retriever: str,
    tokens_per_s: float | None,
    num_jobs: int,
) -> EvaluationPlan:
    factory: BiEncoderFactory = build(config.model)
    model = planned_model(factory)
    dtype = factory.torch_dtype(is_trained=False)
    store_dtype = str(config.evaluation.store_dtype) if config.evaluation.store else None
    work = work_of(
        config,
        evaluator,
        tokenizer=local_tokenizer(config),
        is_stored=store_dtype is not None,
        shares_prefix=model.shares_prefix,
    )
    weights = _weights(config, model, itemsize=dtype.itemsize)
    return EvaluationPlan(
        retriever=retriever,
        machine=machine,
        model=model,
        dtype=str(dtype).removeprefix("torch."),
        dim=model.embedding_dim,
        work=work,
        num_passes=1 if config.evaluation.compare_dtype is None else 2,
        rate=planned_encoding_rate(
            num_linear=model.num_linear,
            dtype=dtype,
            linear_precision=factory.linear_precision,
            card=None if zero_stage(config) == 3 else machine.card,
            stated=tokens_per_s,
            slower=("compiled",) if factory.compile is False else (),
        ),
        weights=weights,
        store_dtype=store_dtype,
        download=download_bytes(model.source, model.config, num_parameters=model.num_parameters),
        host=evaluation_host(
            config,
            machine,
            weights=weights,
            work=work,
            dim=model.embedding_dim,
            num_jobs=num_jobs,
        ),
        num_processes=num_processes(config),
        num_nodes=int(config.trainer.get("num_nodes", 1)),
        num_jobs=num_jobs,
    )


def evaluation_host(
    config: DictConfig,
    machine: Machine,
    *,
    weights: int,
    work: EncodingWork,
    dim: int,
    num_jobs: int,
) -> HostNeed:
    """Count host memory; on a CPU the weights stay there."""
    num_nodes = int(config.trainer.get("num_nodes", 1))
    ranks_per_node = num_processes(config) // num_nodes
    is_stored = bool(config.evaluation.store)
    need = host_need(
        loading=ranks_per_node * weights,
        resident=0 if machine.is_gpu else ranks_per_node * weights,
        num_documents=work.largest_corpus,
        dim=dim,
        ranks_per_node=ranks_per_node,
        num_nodes=num_nodes,
        place=CorpusPlace.of(config.evaluation, is_stored=is_stored),
        host_bytes=machine.host_bytes,
        num_jobs=num_jobs,
    )
    return replace(need, corpus_on_disk=0) if is_stored else need  # the store has them


def _weights(config: DictConfig, model: PlannedModel, *, itemsize: int) -> int:
    """Return their bytes on each device; under ZeRO 3 a share."""
    states = state_bytes(
        num_frozen=model.num_parameters,
        num_trained=0,
        frozen_itemsize=itemsize,
        trained_itemsize=itemsize,
        spread=planned_spread(config),
    )
    return states.weights
