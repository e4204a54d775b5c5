"""Encode blocks of a job, one by one, in this process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from omegaconf import OmegaConf

from quarry.assembly.loaded_encoder import PreparedEncoder
from quarry.assembly.model_parts import build_model_parts
from quarry.config.settled_contract import SettledContract
from quarry.encoding.block_files import write_block
from quarry.encoding.encode_job import EncodeJob
from quarry.encoding.manifest import StoredBlock, digest_of
from quarry.encoding.work_folder import finished_block, record_block
from quarry.errors import UserError
from quarry.retrieval.embeddings import Embeddings, TextEncoder
from quarry.retrieval.stored_encoder import StoredEncoder
from quarry.runtime.disk_errors import Place, explains_disk_errors
from quarry.types import Document, Query

logger = logging.getLogger(__name__)


class BlockEncoder:
    """Encoder of a job's blocks; the model loads with the first one.

    A block that is finished is not encoded again. One that a killed process has left is continued
    from the embedding store, where its finished batches are.

    Args:
        prepared: the settled model; None: as the job's configuration says, in another process.
    """

    def __init__(self, job: EncodeJob, prepared: PreparedEncoder | None = None) -> None:
        self.job = job
        self._prepared = prepared
        self._config = OmegaConf.create(job.config)
        self._encoder: TextEncoder | None = None

    def encode(self, number: int) -> StoredBlock:
        """Encode a block, write its files, and record that it is finished.

        Raises:
            UserError: the model is not the job's, the disk is full, a text does not fit.
        """
        job = self.job
        found = finished_block(job.folder, number)
        if found is not None:
            return found
        with explains_disk_errors(self._places, how_to_continue=lambda: KEPT):
            rows = job.texts_of(number)
            documents = _Rows(job.corpus, rows)
            embeddings = self._embeddings(documents, number)
            block = write_block(
                job.folder,
                number,
                ids=[document.document_id for document in documents[:]],
                embeddings=embeddings,
                file_format=job.terms.file_format,
                dtype=job.terms.dtype,
            )
            record_block(job.folder, number, block)
        return block

    def _embeddings(self, documents: _Rows, number: int) -> Embeddings:
        encoder, role = self._loaded(), self.job.terms.role
        if isinstance(encoder, StoredEncoder):
            # for each block anew: what this process has stored since is not looked at
            encoder.shelves[role].look_only_in(self.job.segments)
        label = f"{self.job.label}, block {number + 1} of {self.job.num_blocks}"
        items = documents if role == "document" else _Queries(documents)
        return encoder.encode(items, role, label=label)

    def _loaded(self) -> TextEncoder:
        if self._encoder is None:
            prepared = self._prepared or _prepared(self)
            loaded = prepared.load(self._config)
            has_store = self.job.terms.store_dtype is not None
            self._encoder = loaded.stored(self._config) if has_store else loaded.encoder
        return self._encoder

    def _places(self) -> list[Place]:
        paths = self.job.config["paths"]
        return [
            Place(what="The output", path=self.job.folder.parent, remedy="task.output=DIR"),
            Place(
                what="The embedding store", path=Path(paths["store_dir"]),
                remedy="paths.store_dir=DIR or evaluation.store=false",
            ),
        ]  # fmt: skip


KEPT = "Finished blocks are kept: the same command continues from there."


def _prepared(blocks: BlockEncoder) -> PreparedEncoder:
    """Return the model of the job's settled configuration, in a process that did not settle it.

    Raises:
        UserError: it is not the same model here.
    """
    terms = blocks.job.terms
    settled = SettledContract(facts={}, differences={})
    prepared = PreparedEncoder(parts=build_model_parts(blocks._config), contract=settled)
    found = prepared.embedding_contract(blocks._config)[terms.role]
    if digest_of(found) != digest_of(terms.contract[terms.role]):
        keys = sorted(
            key for key, value in found.items() if value != terms.contract[terms.role].get(key)
        )
        raise UserError(
            f"model: a worker has another model than the command ({', '.join(keys)} differ). Fix: "
            "give all nodes the same files, and name what depends on the machine: "
            "model.dtype=bfloat16"
        )
    return prepared


class _Rows(Sequence[Document]):
    """Consecutive documents of a corpus."""

    def __init__(self, corpus: Sequence[Document], rows: range) -> None:
        self._corpus = corpus
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | Sequence[Document]:
        rows = self._rows[index]
        if isinstance(rows, int):
            return self._corpus[rows]
        if rows.step == 1:
            return self._corpus[rows.start : rows.stop]
        return [self._corpus[row] for row in rows]


class _Queries(Sequence[Query]):
    """Documents as queries."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = documents

    def __len__(self) -> int:
        return len(self._documents)

    @overload
    def __getitem__(self, index: int) -> Query: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Query]: ...
    def __getitem__(self, index: int | slice) -> Query | Sequence[Query]:
        found = self._documents[index]
        if isinstance(found, Document):
            return _query(found)
        return [_query(document) for document in found]


def _query(document: Document) -> Query:
    return Query(query_id=document.document_id, text=document.text)
