"""Define the work of task=encode as plain data that any process can receive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from quarry.assembly.loaded_encoder import PreparedEncoder
from quarry.data.document_source import Documents
from quarry.data.source_part import SourcePart
from quarry.encoding.manifest import FileFormat, VectorDtype, digest_of
from quarry.retrieval.store.shelf import Shelf
from quarry.types import ROLES, Document, Role

MAX_SEGMENTS = 256
"""Segments of the store that are searched for each block, the largest ones."""

_NODES = ("model", "prompt", "evaluation", "paths", "trainer", "trusted_packages")
"""What of a configuration a worker needs to load the model."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the contents of an output depend on.

    Attributes:
        contract: role -> everything that an embedding depends on.
        source_digest: of the corpus, and of how it is read.
        block_size, max_tokens_per_batch: what batches depend on, and with them the last bits.
        store_dtype: of the embedding store; None: it is not used.
    """

    contract: dict[str, Any]
    source_digest: str
    role: Role
    file_format: FileFormat
    dtype: VectorDtype
    part: SourcePart | None
    block_size: int
    max_tokens_per_batch: int
    store_dtype: str | None

    def as_document(self) -> dict[str, Any]:
        """Return what an unfinished output is recognized by, as plain data."""
        return {
            "contract": digest_of(self.contract[self.role]),
            "corpus": self.source_digest,
            "role": self.role,
            "format": self.file_format,
            "dtype": self.dtype,
            "shard": None if self.part is None else str(self.part),
            "block_size": self.block_size,
            "max_tokens_per_batch": self.max_tokens_per_batch,
            "store_dtype": self.store_dtype,
        }


@dataclass(frozen=True, kw_only=True)
class EncodeJob:
    """A corpus, a model and a folder, in blocks that are encoded one by one.

    A block's vectors depend on the block's texts, the model and `segments` alone: not on the
    process that encodes it, nor on what others encode before or at the same time.

    Attributes:
        config: what loads the model, as plain data without interpolations.
        corpus: the texts; memory-mapped.
        folder: receives the blocks.
        segments: segments of the store that were there at the beginning.
        label: name of the texts in progress and logs.
        output: as the user named it, for messages.
    """

    terms: Terms
    config: dict[str, Any]
    corpus: Sequence[Document]
    folder: Path
    segments: tuple[str, ...]
    label: str
    output: str

    @property
    def num_blocks(self) -> int:
        return -(-len(self.corpus) // self.terms.block_size)

    def texts_of(self, number: int) -> range:
        """Return the rows of the corpus that a block has."""
        size = self.terms.block_size
        return range(number * size, min((number + 1) * size, len(self.corpus)))


def terms_of(
    config: DictConfig,
    prepared: PreparedEncoder,
    *,
    source_digest: str,
    role: Role,
    file_format: FileFormat,
    dtype: VectorDtype,
    part: SourcePart | None,
    block_size: int,
) -> Terms:
    """Return the terms of a configuration, whose model is settled but not loaded."""
    contract = prepared.embedding_contract(config)
    evaluation = config.evaluation
    return Terms(
        contract={each: contract[each] for each in ROLES},
        source_digest=source_digest,
        role=role,
        file_format=file_format,
        dtype=dtype,
        part=part,
        block_size=block_size,
        max_tokens_per_batch=evaluation.max_tokens_per_batch,
        store_dtype=evaluation.store_dtype if evaluation.store else None,
    )


def worker_config(config: DictConfig) -> dict[str, Any]:
    """Return what a worker needs to load the settled model, as plain data."""
    plain: dict[str, Any] = {}
    for name in _NODES:
        node = config[name]
        plain[name] = (
            OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        )
    return plain


def segments_of(config: DictConfig, terms: Terms, *, dim: int) -> tuple[str, ...]:
    """Return the segments of the store in which a new job looks for texts."""
    if terms.store_dtype is None:
        return ()
    shelf = Shelf(
        store=Path(config.paths.store_dir).expanduser().absolute(),
        contract=terms.contract[terms.role],
        dim=dim,
        dtype=terms.store_dtype,
        made_by={},
    )
    return tuple(shelf.segment_names()[:MAX_SEGMENTS])


def label_of(documents: Documents) -> str:
    """Return a short name of the texts."""
    name = Path(documents.place.source.partition("@")[0].rstrip("/")).name or "corpus"
    return name if documents.part is None else f"{name}, shard {documents.part}"
