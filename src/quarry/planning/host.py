"""Estimate the host memory of a job on one node: weights while they load, embeddings, states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from quarry.models.memory import FP32_BYTES, gib
from quarry.planning.machine import Machine
from quarry.planning.step_memory import StepMemory
from quarry.retrieval.corpus_embeddings import LARGEST_SHARE_OF_MEMORY
from quarry.retrieval.store.shelf import DTYPES
from quarry.runtime.own_command import own_command

BYTES_PER_DOCUMENT = 100
"""Bytes of a document's id, the hash of its text and its row, in each rank that searches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusPlace:
    """Say where the embeddings of a corpus are while it is searched.

    Attributes:
        is_on_disk: None: on disk if they are large (`evaluation.corpus_on_disk=auto`).
        itemsize: bytes of a number.
        is_stored: the embedding store has them.
        has_disk_key: the configuration has the key evaluation.corpus_on_disk.
        dtype: evaluation.corpus_dtype; None: the configuration has no such key.
    """

    is_on_disk: bool | None = False
    itemsize: int = FP32_BYTES
    is_stored: bool = False
    has_disk_key: bool = False
    dtype: str | None = None

    @classmethod
    def of(cls, evaluation: Mapping[str, Any], *, is_stored: bool = False) -> CorpusPlace:
        """Read it from `evaluation`.

        Args:
            is_stored: the embedding store has them.
        """
        asked = True if is_stored else evaluation.get("corpus_on_disk", False)
        dtype = evaluation["store_dtype"] if is_stored else evaluation.get("corpus_dtype")
        return cls(
            is_on_disk=None if str(asked) == "auto" else bool(asked),
            itemsize=itemsize_of(dtype or "float32"),
            is_stored=is_stored,
            has_disk_key="corpus_on_disk" in evaluation,
            dtype=evaluation.get("corpus_dtype"),
        )


def itemsize_of(dtype: str) -> int:
    """Return the bytes of one number of an embedding."""
    return int(DTYPES[dtype].itemsize)


@dataclass(frozen=True, kw_only=True, slots=True)
class HostNeed:
    """Hold the bytes of host memory of one job on one node.

    Attributes:
        loading: the weights of all its ranks while they are read.
        resident: what stays: offloaded states, and on a CPU all that a step takes.
        corpus: embeddings of the largest corpus that is searched in memory.
        ids: ids and hashes of its documents in all ranks.
        corpus_on_disk: embeddings in files instead, of the same corpus.
    """

    loading: int
    resident: int = 0
    corpus: int = 0
    ids: int = 0
    corpus_on_disk: int = 0

    @property
    def total(self) -> int:
        """Return the peak; an evaluation comes after the weights were read."""
        return max(self.loading, self.resident + self.corpus + self.ids)


def host_need(
    *,
    loading: int,
    resident: int,
    num_documents: int,
    dim: int,
    ranks_per_node: int,
    num_nodes: int,
    place: CorpusPlace,
    host_bytes: int | None,
    num_jobs: int = 1,
) -> HostNeed:
    """Add up what one job takes on a node.

    Args:
        loading, resident: see `HostNeed`.
        num_documents, dim: of the largest corpus, whose embeddings all ranks share.
        host_bytes: what the node has for all jobs; None: not known, and `auto` stays in memory.
        num_jobs: that run on the node at once.
    """
    corpus = num_documents * dim * place.itemsize // num_nodes
    need = HostNeed(
        loading=loading,
        resident=resident,
        corpus=corpus,
        ids=num_documents * BYTES_PER_DOCUMENT * ranks_per_node,
    )
    is_large = host_bytes is not None and num_jobs * corpus > LARGEST_SHARE_OF_MEMORY * host_bytes
    if place.is_on_disk or (place.is_on_disk is None and is_large):
        return replace(need, corpus=0, corpus_on_disk=0 if place.is_stored else corpus)
    return need


def training_host(
    memory: StepMemory,
    machine: Machine,
    *,
    place: CorpusPlace,
    num_documents: int,
    dim: int,
    ranks_per_node: int,
    num_nodes: int,
    num_jobs: int,
) -> HostNeed:
    """Add up what a training takes on a node; on a CPU all that a step takes is there.

    Args:
        memory: of one rank.
        num_documents: of the largest corpus of its evaluations.
    """
    on_host = memory.host if machine.is_gpu else memory.host + memory.total
    return host_need(
        loading=ranks_per_node * memory.weights,
        resident=ranks_per_node * on_host,
        num_documents=num_documents,
        dim=dim,
        ranks_per_node=ranks_per_node,
        num_nodes=num_nodes,
        place=place,
        host_bytes=machine.host_bytes,
        num_jobs=num_jobs,
    )


def host_reason(need: HostNeed, *, host_bytes: int, num_jobs: int) -> str | None:
    """Return why the jobs cannot run at once; None: the memory holds them."""
    if num_jobs * need.total <= host_bytes:
        return None
    what = "The run" if num_jobs == 1 else f"{num_jobs} jobs at once"
    corpus = f", {gib(need.corpus)} of it embeddings of the corpus" if need.corpus else ""
    each = f" ({gib(need.total)} each{corpus})" if num_jobs > 1 else corpus
    return (
        f"{what} would take {gib(num_jobs * need.total)} of host memory{each}, and "
        f"{gib(host_bytes)} are available."
    )


def host_remedies(
    need: HostNeed,
    place: CorpusPlace,
    *,
    host_bytes: int,
    num_jobs: int,
    is_training: bool,
    jobs_key: str = "task.num_jobs_at_once",
) -> dict[str, str]:
    """Return overrides with which the memory of the host holds the jobs, and what they mean.

    Args:
        jobs_key: that says how many run at once.
    """

    def fits(corpus: int, ids: int = need.ids) -> bool:
        return num_jobs * replace(need, corpus=corpus, ids=ids).total <= host_bytes

    found = {}
    if place.has_disk_key and need.corpus and fits(0):
        found["evaluation.corpus_on_disk=true"] = "embeddings of the corpus in files"
    if place.dtype == "float32" and need.corpus and fits(need.corpus // 2):
        found["evaluation.corpus_dtype=float16"] = "embeddings of half the size"
    if is_training and need.corpus and fits(0, 0):
        afterwards = f"{own_command('eval')} model.path=RUN_DIR afterwards"
        found["benchmark=none"] = f"no evaluation; {afterwards}"
    if not is_training and need.corpus and fits(0):
        found["evaluation.store=true"] = "embeddings in the store"
    if num_jobs > 1 and need.total <= host_bytes:
        found[f"{jobs_key}={host_bytes // need.total}"] = "fewer jobs at once"
    return found
