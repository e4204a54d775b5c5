"""Plan an evaluation from its inputs, without weights and network."""

from __future__ import annotations

from quarry.models.memory import state_bytes
from quarry.models.model_spec import ModelSpec
from quarry.planning.disk import download_bytes
from quarry.planning.encoding_rate import planned_encoding_rate
from quarry.planning.encoding_work import EncodingWork
from quarry.planning.evaluation_outcome import EvaluationPlan
from quarry.planning.host import HostNeed, host_need
from quarry.planning.inputs import PlannedEvaluation, Ranks
from quarry.planning.local_lengths import LocalLengths
from quarry.planning.machine import Machine
from quarry.planning.rate import Rate
from quarry.planning.setup import PlannedModel, planned_model


def make_evaluation_plan(
    inputs: PlannedEvaluation, machine: Machine, *, tokens_per_s: float | None, num_jobs: int = 1
) -> EvaluationPlan:
    """Plan an evaluation.

    Args:
        tokens_per_s: of one device; None: as measured.
        num_jobs: that run on the machine at once.

    Raises:
        CannotLoadError: no model of that shape is known.
    """
    if inputs.spec is None:
        return _without_model(inputs, machine)
    return _with_model(inputs, inputs.spec, machine, tokens_per_s=tokens_per_s, num_jobs=num_jobs)


def _without_model(inputs: PlannedEvaluation, machine: Machine) -> EvaluationPlan:
    """Plan a retriever that embeds nothing."""
    return EvaluationPlan(
        retriever=inputs.retriever,
        machine=machine,
        model=None,
        dtype="",
        dim=0,
        work=_work(inputs, is_stored=False, shares_prefix=False),
        num_passes=0,
        rate=None,
        weights=0,
        store_dtype=None,
        download=0,
        host=HostNeed(loading=0),
        world_size=inputs.ranks.world_size,
        num_nodes=inputs.ranks.num_nodes,
        num_jobs=1,
        reranked_depth=inputs.reranked_depth,
    )


def _with_model(
    inputs: PlannedEvaluation,
    spec: ModelSpec,
    machine: Machine,
    *,
    tokens_per_s: float | None,
    num_jobs: int,
) -> EvaluationPlan:
    model, dtype = planned_model(spec), spec.options.torch_dtype(is_trained=False)
    work = _work(
        inputs,
        is_stored=inputs.store_dtype is not None,
        shares_prefix=model.shares_prefix and not inputs.ranks.has_shards,
    )
    weights = _weights(inputs.ranks, model, itemsize=dtype.itemsize)
    host = _host(inputs, machine, weights=weights, work=work, model=model, num_jobs=num_jobs)
    return EvaluationPlan(
        retriever=inputs.retriever,
        machine=machine,
        model=model,
        dtype=str(dtype).removeprefix("torch."),
        dim=model.embedding_dim,
        work=work,
        num_passes=inputs.num_passes,
        rate=_rate(inputs, spec, machine, model=model, stated=tokens_per_s),
        weights=weights,
        store_dtype=inputs.store_dtype,
        download=download_bytes(model.source, model.config, num_parameters=model.num_parameters),
        host=host,
        world_size=inputs.ranks.world_size,
        num_nodes=inputs.ranks.num_nodes,
        num_jobs=num_jobs,
        reranked_depth=inputs.reranked_depth,
    )


def _work(inputs: PlannedEvaluation, *, is_stored: bool, shares_prefix: bool) -> EncodingWork:
    count = LocalLengths(
        evaluator=inputs.evaluator,
        prompt=inputs.prompt,
        tokenizer=inputs.load_tokenizer(),
        seed=inputs.seed,
    )
    return count.work(is_stored=is_stored, shares_prefix=shares_prefix)


def _rate(
    inputs: PlannedEvaluation,
    spec: ModelSpec,
    machine: Machine,
    *,
    model: PlannedModel,
    stated: float | None,
) -> Rate | None:
    return planned_encoding_rate(
        num_linear=model.num_linear,
        dtype=spec.options.torch_dtype(is_trained=False),
        linear_precision=spec.options.linear_precision,
        card=None if inputs.ranks.zero_stage == 3 else machine.card,
        stated=stated,
        slower=("compiled",) if spec.options.compile is False else (),
    )


def _host(
    inputs: PlannedEvaluation,
    machine: Machine,
    *,
    weights: int,
    work: EncodingWork,
    model: PlannedModel,
    num_jobs: int,
) -> HostNeed:
    """Count host memory; on a CPU the weights stay there."""
    on_node = inputs.ranks.per_node * weights
    return host_need(
        loading=on_node,
        resident=0 if machine.is_gpu else on_node,
        num_documents=work.largest_corpus,
        dim=model.embedding_dim,
        ranks_per_node=inputs.ranks.per_node,
        num_nodes=inputs.ranks.num_nodes,
        place=inputs.corpus,
        host_bytes=machine.host_bytes,
        num_jobs=num_jobs,
    )


def _weights(ranks: Ranks, model: PlannedModel, *, itemsize: int) -> int:
    """Return their bytes on each device; under ZeRO 3 a share."""
    states = state_bytes(
        num_frozen=model.num_parameters,
        num_trained=0,
        frozen_itemsize=itemsize,
        trained_itemsize=itemsize,
        spread=ranks.spread,
    )
    return states.weights
