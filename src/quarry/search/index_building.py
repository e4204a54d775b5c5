"""Build an index folder: vectors, documents, words, faiss' index, its recall, the manifest."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import quarry
from quarry.data.corpus import read_corpus, write_corpus
from quarry.errors import UserError
from quarry.retrieval.embeddings import Embeddings
from quarry.retrieval.tie_breaking import tie_order
from quarry.runtime.disk_errors import free_bytes, readable_size
from quarry.runtime.files import sync, sync_folder
from quarry.runtime.leftovers import scratch_folder
from quarry.runtime.ownership import owned
from quarry.runtime.progress import Progress
from quarry.search import lexical
from quarry.search.index_kinds import FAISS_FILE, IndexKind
from quarry.search.index_manifest import (
    MANIFEST_FILE,
    IndexedFile,
    IndexManifest,
    contract_digest,
    plain,
    read_manifest,
)
from quarry.search.lexical import write_lexical
from quarry.search.recall import RecallQueries, measured_recall
from quarry.search.search_index import (
    DOCUMENT_FILES,
    DOCUMENTS,
    PLACES,
    VECTORS,
    SearchIndex,
)
from quarry.types import Content, Document

logger = logging.getLogger(__name__)

NUM_ROWS_AT_A_TIME = 8_192
LOCK = ".lock"

FILES = (*DOCUMENT_FILES, VECTORS, PLACES, FAISS_FILE, *lexical.FILES)
"""All files that an index may have beside its manifest."""


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """How an index is built.

    Attributes:
        kind: what is searched, see `index_kinds`.
        dtype: of the stored vectors, float16 or float32.
        bm25: kind of the terms for hybrid search; None: none.
        num_recall_queries: documents of the corpus that are the queries of the measured recall.
    """

    kind: IndexKind
    dtype: str
    bm25: Content | None
    num_recall_queries: int


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the vectors come from, as in `IndexManifest`."""

    model: Mapping[str, Any]
    contract: Mapping[str, Any]
    source: Mapping[str, Any]


def check_target(target: Path) -> None:
    """Refuse a folder that is an index already, or holds something else.

    Raises:
        UserError: with the remedy.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"task.output={target}: is a file. Fix: task.output=DIR, a new folder")
    if (target / MANIFEST_FILE).exists():
        raise UserError(
            f"task.output={target}: holds {_what(target)}, which is not overwritten. Fix: another "
            f"task.output, or remove it"
        )
    foreign = [each.name for each in target.iterdir() if each.name not in (*FILES, LOCK)]
    if foreign:
        raise UserError(
            f"task.output={target}: holds other files ({', '.join(sorted(foreign)[:3])}). Fix: "
            "task.output=DIR, a new folder"
        )


def _what(target: Path) -> str:
    try:
        return f"an index of {read_manifest(target).num_documents:,} documents"
    except UserError:
        return f"a {MANIFEST_FILE}"


def build_index(
    target: Path,
    *,
    documents: Sequence[Document],
    vectors: Embeddings,
    settings: IndexSettings,
    origin: Origin,
    queries: RecallQueries | None = None,
) -> SearchIndex:
    """Build an index in a folder of its own and return it, opened.

    Everything is written beside the folder and moved into it at the end, the manifest last, which
    makes it an index. A killed build leaves nothing that could be taken for one.

    Args:
        target: a new folder, or one that a killed build has left.
        documents: [num_documents], in the order of the vectors.
        vectors: [num_documents, dim].
        queries: for the measured recall; None: documents of the corpus.

    Raises:
        UserError: the folder is in use or not free, a vector is not finite or does not fit the
            dtype, two documents have one id, or the disk is full.
    """
    target = target.expanduser().absolute()
    check_target(target)
    num_documents, dim = len(documents), int(vectors.shape[1])
    if len(vectors) != num_documents or num_documents == 0:
        raise UserError(
            f"task.output={target}: {len(vectors)} vectors for {num_documents} documents (one for "
            "each, at least one). Fix: encode this corpus"
        )
    parameters = settings.kind.settled(num_documents=num_documents, dim=dim)
    _check_disk(target, num_bytes=num_documents * dim * np.dtype(settings.dtype).itemsize)
    with owned(target, is_new=True), scratch_folder(target) as folder:
        check_target(target)  # another process may have just built it
        index = _Build(folder, settings, parameters, origin)
        index.write_documents(documents)
        matrix = index.write_vectors(vectors)
        index.write_lexical()
        index.write_kind(matrix)
        manifest = index.manifest(matrix)
        manifest.write(folder)
        recall = measured_recall(
            SearchIndex.open(folder), queries, num_queries=settings.num_recall_queries
        )
        index.manifest(matrix, recall=recall).write(folder)
        _move(folder, target)
    return SearchIndex.open(target)


class _Build:
    """The parts of an index as they are written to a folder."""

    def __init__(
        self,
        folder: Path,
        settings: IndexSettings,
        parameters: Mapping[str, Any],
        origin: Origin,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.parameters = parameters
        self.origin = origin
        self.files = [*DOCUMENT_FILES, VECTORS, PLACES]
        self.largest_norm = 0.0
        self.bm25: Content | None = None
        self._facts: dict[str, IndexedFile] = {}

    def write_documents(self, documents: Sequence[Document]) -> None:
        write_corpus(self.folder / DOCUMENTS, documents)
        ids = [document.document_id for document in read_corpus(self.folder / DOCUMENTS)]
        np.save(self.folder / PLACES, tie_order(ids))

    def write_vectors(self, vectors: Embeddings) -> NDArray[np.floating]:
        """Write the vectors in the index's dtype, and return them mapped."""
        dtype = np.dtype(self.settings.dtype)
        path, dim = self.folder / VECTORS, int(vectors.shape[1])
        # not through a map: a full disk would end the process by a signal there
        with (
            path.open("wb") as file,
            Progress(label="vectors", total=len(vectors), units="vectors") as progress,
        ):
            np.lib.format.write_array_header_1_0(
                file,
                {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (len(vectors), dim),
                },
            )
            for start in range(0, len(vectors), NUM_ROWS_AT_A_TIME):
                part = vectors[start : start + NUM_ROWS_AT_A_TIME].float().cpu()
                with np.errstate(over="ignore"):  # refused below
                    rows = part.numpy().astype(dtype)
                self._check_finite(rows, part, start)
                norms = np.linalg.norm(rows.astype(np.float64), axis=1)
                self.largest_norm = max(self.largest_norm, float(norms.max()))
                file.write(rows.data)
                progress.add(len(rows))
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]

    def write_lexical(self) -> None:
        if self.settings.bm25 is None:
            return
        corpus = read_corpus(self.folder / DOCUMENTS)
        if write_lexical(self.folder, corpus, content=self.settings.bm25):
            self.bm25 = self.settings.bm25
            self.files += lexical.FILES
        else:
            logger.warning("task.bm25=%s: no document has a term", self.settings.bm25)

    def write_kind(self, matrix: NDArray[Any]) -> None:
        self.files += self.settings.kind.write(self.folder, matrix, self.parameters)

    def manifest(
        self, matrix: NDArray[Any], *, recall: Mapping[str, Any] | None = None
    ) -> IndexManifest:
        if not self._facts:
            sync(self.folder)
            self._facts = {name: IndexedFile.of(self.folder / name) for name in self.files}
        contract = plain(self.origin.contract)
        return IndexManifest(
            num_documents=len(matrix),
            dim=matrix.shape[1],
            dtype=self.settings.dtype,
            largest_norm=self.largest_norm,
            index={"kind": self.settings.kind.name, "parameters": dict(self.parameters)},
            recall=recall or {},
            model=plain(self.origin.model),
            contract=contract,
            digest=contract_digest(contract),
            source=plain(self.origin.source),
            bm25=self.bm25,
            files=self._facts,
            made_by={
                "quarry": quarry.__version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "platform": platform.platform(),
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )

    def _check_finite(self, rows: NDArray[np.floating], given: torch.Tensor, start: int) -> None:
        is_wrong = ~np.isfinite(rows).all(axis=1)
        if not is_wrong.any():
            return
        row = int(is_wrong.argmax())
        document = read_corpus(self.folder / DOCUMENTS)[start + row]
        if bool(torch.isfinite(given[row]).all()):
            raise UserError(
                f"task.dtype={self.settings.dtype}: the vector of {document.document_id!r} has a "
                "number that is too large for it. Fix: task.dtype=float32"
            )
        raise UserError(
            f"The vector of document {document.document_id!r} is not finite (NaN or infinite): the "
            "model has diverged, or overflows in half precision. Fix: model.dtype=float32, or "
            "another checkpoint"
        )


def _check_disk(target: Path, *, num_bytes: int) -> None:
    free = free_bytes(target.parent)
    if num_bytes > free:
        raise UserError(
            f"task.output={target}: the vectors take {readable_size(num_bytes)}, and "
            f"{readable_size(free)} are free there. Nothing was written. Fix: make room, "
            "task.dtype=float16, or task.output=DIR on a larger disk"
        )


def _move(folder: Path, target: Path) -> None:
    """Move finished files into the folder, the manifest last."""
    sync(folder)
    for left in FILES:
        (target / left).unlink(missing_ok=True)
    names = sorted(each.name for each in folder.iterdir() if each.name != MANIFEST_FILE)
    for name in [*names, MANIFEST_FILE]:
        if name == MANIFEST_FILE:
            sync_folder(target)
        (folder / name).rename(target / name)
    sync_folder(target)
