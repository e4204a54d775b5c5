"""Hold the plan of an evaluation: what it takes, whether it fits, and all of it as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from quarry.planning.encoding_work import EncodingWork
from quarry.planning.host import HostNeed, itemsize_of
from quarry.planning.machine import Machine
from quarry.planning.rate import Rate
from quarry.planning.setup import PlannedModel

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPlan:
    """Hold what an evaluation would take.

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
        reranked_depth: documents of a query that a reranker scores; None: there is none.
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
    world_size: int
    num_nodes: int
    num_jobs: int
    reranked_depth: int | None = None

    @property
    def hours(self) -> float | None:
        """Return hours of encoding the known sets; None: not known, or none are encoded."""
        if self.model is None or self.rate is None or self.work.is_unknown:
            return None
        return self.num_passes * self.work.hours(
            tokens_per_s=self.rate.tokens_per_s, num_devices=self.world_size
        )

    @property
    def num_reranked_pairs(self) -> int | None:
        """Return the pairs that a reranker scores, at most; None: not known, or there is none."""
        if self.reranked_depth is None or self.work.is_unknown:
            return None
        return self.work.num_pairs(depth=self.reranked_depth)

    @property
    def tokens_per_process(self) -> float | None:
        """Return the tokens that each rank tokenizes and encodes; None: not known, or none."""
        if self.model is None or self.work.is_unknown:
            return None
        return self.num_passes * self.work.num_tokens / self.world_size

    @property
    def device_hours(self) -> float | None:
        return None if self.hours is None else self.hours * self.world_size

    @property
    def is_at_least(self) -> bool:
        """Return whether it takes longer than `hours` says."""
        if self.work.prefix_tokens is None:  # for all that is known, less
            return False
        return bool(self.work.unknown_sets) or (self.rate is not None and self.rate.is_limit)

    @property
    def store_bytes(self) -> int:
        """Return bytes of the stored embeddings of the known sets."""
        if self.store_dtype is None:
            return 0
        itemsize = itemsize_of(self.store_dtype)
        return self.num_passes * self.work.embedding_bytes(dim=self.dim, itemsize=itemsize)

    @property
    def disk_bytes(self) -> int:
        """Return bytes of embeddings, in the store or while they are searched."""
        return self.store_bytes + self.host.corpus_on_disk

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
        """Return numbers in bytes, tokens and hours; null: not known, of hours also: none."""
        model, is_known = self.model, not self.work.is_unknown
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
            "num_processes": self.world_size,
            "num_nodes": self.num_nodes,
            "num_jobs_at_once": self.num_jobs,
            "sets": [asdict(one) | {"num_texts": one.num_texts} for one in self.work.sets],
            "num_texts": self.work.num_texts if is_known else None,
            "num_tokens": self.work.num_tokens if is_known else None,
            "num_computed_tokens": self.work.num_computed_tokens if is_known else None,
            "prefix_tokens": self.work.prefix_tokens,
            "num_passes": self.num_passes,
            "reranked_depth": self.reranked_depth,
            "num_reranked_pairs": self.num_reranked_pairs,
            "tokens_per_process": self.tokens_per_process,
            "unknown_sets": list(self.work.unknown_sets),
            "rate": None if self.rate is None else asdict(self.rate),
            "hours": self.hours,
            "device_hours": self.device_hours,
            "is_at_least": self.is_at_least,
            "store_bytes": self.store_bytes if is_known else None,
            "store_dtype": self.store_dtype,
            "weights_bytes_per_process": self.weights,
            "host": asdict(self.host) | {"total": self.host.total},
            "download_bytes": self.download,
            "fits_memory": self.fits_memory,
            "fits_disk": self.fits_disk,
            "fits_host": self.fits_host,
        }

    def summary(self) -> dict[str, float]:
        """Return the few numbers that sweeps collect; what is not known is left out."""
        values: dict[str, float | None] = {}
        if not self.work.unknown_sets:
            values["plan/num_texts"] = self.work.num_texts
            values["plan/num_reranked_pairs"] = self.num_reranked_pairs
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
