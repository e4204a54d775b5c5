"""A plan of an evaluation: what there is to encode, how long that takes, and what has to fit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig

from quarry.config.instantiate import build
from quarry.config.processes import num_processes, zero_stage
from quarry.errors import UserError
from quarry.evaluation.evaluator import Evaluator
from quarry.models.factory import BiEncoderFactory
from quarry.models.memory import state_bytes
from quarry.retrieval.retriever import Retriever
from quarry.tasks.parts import build_baseline, build_evaluator, settle_contract
from quarry.tasks.planning.disk import download_bytes
from quarry.tasks.planning.encoding_rate import planned_encoding_rate
from quarry.tasks.planning.encoding_work import EncodingWork
from quarry.tasks.planning.evaluations import work_of
from quarry.tasks.planning.host import CorpusPlace, HostNeed, host_need, itemsize_of
from quarry.tasks.planning.machine import Machine
from quarry.tasks.planning.rate import Rate
from quarry.tasks.planning.setup import PlannedModel, planned_model
from quarry.tasks.planning.workload import local_tokenizer
from quarry.tasks.strategy import planned_spread

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPlan:
    """What an evaluation would take.

    Attributes:
        retriever: its name.
        model: None: the retriever embeds nothing.
        dtype: of the weights.
        dim: numbers of an embedding.
        work: texts and tokens of the benchmark.
        num_passes: how often they are encoded: once more for `evaluation.compare_dtype`.
        rate: of encoding, of one device; None: not known.
        weights: bytes on each device.
        store_dtype: of the embedding store; None: there is none.
        download: bytes of weights that have to come from the hub.
        host: memory of the host, of this job on one node.
        num_jobs: that run on the machine at once, this one among them.
    """

    retriever: str
    machine: Machine
    model: PlannedModel | None
    dtype: str
    dim: int
    work: EncodingWork
    num_passes: int
    rate: Rate | None
    weights: int
    store_dtype: str | None
    download: int
    host: HostNeed
    num_processes: int
    num_nodes: int
    num_jobs: int

    @property
    def hours(self) -> float | None:
        """Of encoding the known sets; None: not known, or nothing is encoded."""
        if self.model is None or self.rate is None:
            return None
        return self.num_passes * self.work.hours(
            tokens_per_s=self.rate.tokens_per_s, num_devices=self.num_processes
        )

    @property
    def device_hours(self) -> float | None:
        return None if self.hours is None else self.hours * self.num_processes

    @property
    def is_at_least(self) -> bool:
        """Whether it takes longer than `hours` says."""
        return bool(self.work.unknown_sets) or (self.rate is not None and self.rate.is_limit)

    @property
    def store_bytes(self) -> int:
        """Of the embeddings of the known sets."""
        if self.store_dtype is None:
            return 0
        itemsize = itemsize_of(self.store_dtype)
        return self.num_passes * self.work.embedding_bytes(dim=self.dim, itemsize=itemsize)

    @property
    def disk_bytes(self) -> int:
        """Of embeddings, in the store or while they are searched."""
        return self.store_bytes + (self.host.corpus_on_disk if self.store_dtype is None else 0)

    @property
    def fits_disk(self) -> bool:
        free = self.machine.disk_bytes
        return free is None or self.disk_bytes <= free

    @property
    def fits_memory(self) -> bool:
        return self.weights <= self.machine.num_bytes

    @property
    def fits_host(self) -> bool:
        free = self.machine.host_bytes
        return free is None or self.num_jobs * self.host.total <= free

    def as_json(self) -> dict[str, Any]:
        """Numbers in bytes, tokens and hours; null: not known, of hours also: none."""
        model = self.model
        return {
            "retriever": self.retriever,
            "model": None
            if model is None
            else {
                "source": model.source,
                "shape_from": model.shape_from,
                "num_parameters": model.num_parameters,
                "dtype": self.dtype,
                "dim": self.dim,
            },
            "machine": asdict(self.machine),
            "num_processes": self.num_processes,
            "num_nodes": self.num_nodes,
            "num_jobs_at_once": self.num_jobs,
            "sets": [asdict(one) | {"num_texts": one.num_texts} for one in self.work.sets],
            "num_texts": self.work.num_texts,
            "num_tokens": self.work.num_tokens,
            "num_passes": self.num_passes,
            "unknown_sets": list(self.work.unknown_sets),
            "rate": None if self.rate is None else asdict(self.rate),
            "hours": self.hours,
            "device_hours": self.device_hours,
            "is_at_least": self.is_at_least,
            "store_bytes": self.store_bytes,
            "store_dtype": self.store_dtype,
            "weights_bytes_per_process": self.weights,
            "host": asdict(self.host) | {"total": self.host.total},
            "download_bytes": self.download,
            "fits_memory": self.fits_memory,
            "fits_disk": self.fits_disk,
            "fits_host": self.fits_host,
        }

    def summary(self) -> dict[str, float]:
        """The few numbers that sweeps collect; what is not known is not in it."""
        values: dict[str, float | None] = {}
        if not self.work.unknown_sets:
            values["plan/num_texts"] = self.work.num_texts
        if self.model is not None:
            if not self.work.unknown_sets:
                values |= {
                    "plan/num_tokens": self.work.num_tokens,
                    "plan/store_gib": self.store_bytes / GIB,
                }
            values |= {
                "plan/hours": None if self.work.unknown_sets else self.hours,
                "plan/weights_gib": self.weights / GIB,
                "plan/host_gib": self.num_jobs * self.host.total / GIB,
            }
        return {name: float(value) for name, value in values.items() if value is not None}


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
    """Of a retriever that embeds nothing."""
    return EvaluationPlan(
        retriever=retriever,
        machine=machine,
        model=None,
        dtype="",
        dim=0,
        work=work_of(config, evaluator, tokenizer=None, is_stored=False),
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
    )
    weights = _weights(config, model, itemsize=dtype.itemsize)
    dim = int(model.config.get_text_config().hidden_size)
    return EvaluationPlan(
        retriever=retriever,
        machine=machine,
        model=model,
        dtype=str(dtype).removeprefix("torch."),
        dim=dim,
        work=work,
        num_passes=1 if config.evaluation.compare_dtype is None else 2,
        rate=planned_encoding_rate(
            num_linear=model.num_linear,
            itemsize=dtype.itemsize,
            linear=factory.linear,
            card=None if zero_stage(config) == 3 else machine.card,
            stated=tokens_per_s,
            slower=("compiled",) if factory.compile is False else (),
        ),
        weights=weights,
        store_dtype=store_dtype,
        download=download_bytes(model.source, model.config, num_parameters=model.num_parameters),
        host=evaluation_host(
            config, machine, weights=weights, work=work, dim=dim, num_jobs=num_jobs
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
    """Memory of the host; on a CPU the weights stay there."""
    num_nodes = int(config.trainer.get("num_nodes", 1))
    ranks_per_node = num_processes(config) // num_nodes
    return host_need(
        loading=ranks_per_node * weights,
        resident=0 if machine.is_gpu else ranks_per_node * weights,
        num_documents=work.largest_corpus,
        dim=dim,
        ranks_per_node=ranks_per_node,
        num_nodes=num_nodes,
        place=CorpusPlace.of(config.evaluation, is_stored=bool(config.evaluation.store)),
        host_bytes=machine.host_bytes,
        num_jobs=num_jobs,
    )


def _weights(config: DictConfig, model: PlannedModel, *, itemsize: int) -> int:
    """On each device; under ZeRO 3 a share."""
    states = state_bytes(
        num_frozen=model.num_parameters,
        num_trained=0,
        frozen_itemsize=itemsize,
        trained_itemsize=itemsize,
        spread=planned_spread(config),
    )
    return states.weights
