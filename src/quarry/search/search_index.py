"""Open an index folder: search its vectors, show its documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from quarry.data.corpus import Corpus, read_corpus
from quarry.errors import UserError
from quarry.retrieval.index.rescored import Matrix, exact_scores, search_rows
from quarry.retrieval.tie_breaking import NO_RANKING, top_k_by_score
from quarry.search.index_kinds import FAISS_FILE, FaissIndex
from quarry.search.index_manifest import IndexManifest, check_files, damaged, read_manifest
from quarry.search.lexical import LexicalIndex
from quarry.types import Content, Document

DOCUMENTS = "documents.arrow"
DOCUMENT_FILES = (DOCUMENTS, "documents.ids.npy")
VECTORS = "vectors.npy"
PLACES = "places.npy"

NO_ROW = -1
"""Fills a query's results where an approximate index has found fewer documents than asked for."""


class SearchIndex:
    """A folder of task=index: vectors, documents, and what a search needs.

    Files are mapped, and read where they are needed. A document's number is its row.

    Args:
        folder: of the index.
        manifest: its manifest.
        documents: [num_documents].
        vectors: [num_documents, dim].
        places: [num_documents] the documents' places in `tie_order`.
        faiss: finds candidates; None: the search is exact.
        lexical: BM25; None: the index was built without.
    """

    def __init__(
        self,
        folder: Path,
        *,
        manifest: IndexManifest,
        documents: Corpus,
        vectors: Matrix,
        places: NDArray[np.int64],
        faiss: FaissIndex | None = None,
        lexical: LexicalIndex | None = None,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._documents = documents
        self._vectors = vectors
        self._places = places
        self._faiss = faiss
        self._lexical = lexical

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = False) -> SearchIndex:
        """Open an index.

        Args:
            verify: read all bytes and compare their checksums; else sizes and both ends of files.

        Raises:
            MissingPathError: it is no index.
            UserError: it is damaged, of another version, or needs faiss, which is not installed.
        """
        path = Path(folder).expanduser().absolute()
        manifest = read_manifest(path)
        check_files(path, manifest, verify=verify)
        try:
            return _opened(path, manifest)
        except UserError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise damaged(path, " ".join(str(error).split())[:300]) from error

    def __len__(self) -> int:
        return self.manifest.num_documents

    @property
    def has_lexical(self) -> bool:
        """Whether BM25 is there, for hybrid search."""
        return self._lexical is not None

    def search(
        self, query_vectors: NDArray[np.float32], top_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and scores of the best documents of each query, best first.

        Scores are inner products, exact to fp32; equal ones rank by document id descending. An
        approximate index may miss documents, and then has another one in their place.

        Args:
            query_vectors: [num_queries, dim].
            top_k: documents a query; all if there are fewer.

        Returns:
            Both [num_queries, min(top_k, len(self))]. Where an approximate index has found fewer,
            the rest has row -1 and score -inf.

        Raises:
            UserError: `top_k` is below 1, the width is another, or a number is not finite.
        """
        queries = self._checked(query_vectors, top_k)
        if self._faiss is not None:
            return self._search_faiss(queries, min(top_k, len(self)))
        return self.search_exactly(queries, top_k)

    def search_exactly(
        self, query_vectors: NDArray[np.float32], top_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search all vectors, whatever kind of index this is; see `search`."""
        return search_rows(
            queries=self._checked(query_vectors, top_k),
            documents=self._vectors,
            places=self._places,
            largest_norm=self.manifest.largest_norm,
            top_k=top_k,
        )

    def search_words(self, text: str, top_k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and BM25 scores of the best documents that share a term with the text.

        Raises:
            UserError: the index has no BM25.
        """
        self.check_lexical()
        assert self._lexical is not None
        return self._lexical.search(text, places=self._places, top_k=top_k)

    def check_lexical(self) -> None:
        """Refuse hybrid search where the index has no BM25."""
        if self._lexical is None:
            raise UserError(
                f"hybrid=true: the index {self.folder} has no BM25 (built with task.bm25=null, or "
                "no document has a term). Fix: build it with task.bm25=text or task.bm25=code, or "
                "search without hybrid"
            )

    def document(self, row: int) -> Document:
        """Return the document of a row.

        Raises:
            UserError: there is no such row.
        """
        if not 0 <= row < len(self):
            raise UserError(f"row={row}: the index {self.folder} has rows 0 to {len(self) - 1}")
        return self._documents[int(row)]

    def has(self, document_id: str) -> bool:
        """Return whether the index has a document of this id."""
        return int(self._documents.rows_of([document_id])[0]) >= 0

    def row_of(self, document_id: str) -> int:
        """Return the row of a document.

        Raises:
            UserError: the index has no document of that id.
        """
        row = int(self._documents.rows_of([document_id])[0])
        if row < 0:
            raise UserError(
                f"document_id={document_id[:200]!r}: the index {self.folder} has no document of "
                f"this id (its {len(self):,} ids are those of the corpus, such as "
                f"{self.document(0).document_id[:200]!r})"
            )
        return row

    def vectors(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return stored vectors in fp32: [len(rows), dim]."""
        return self._vectors[np.asarray(rows, dtype=np.int64)].astype(np.float32)

    def _search_faiss(
        self, queries: NDArray[np.float32], top_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        assert self._faiss is not None
        rows = np.full((len(queries), top_k), NO_ROW, dtype=np.int64)
        scores = np.full((len(queries), top_k), -np.inf, dtype=np.float32)
        for number, query in enumerate(queries):
            found = self._faiss.rows(query, top_k=top_k)
            exact = exact_scores(query, self._vectors, found)
            best = top_k_by_score(exact, self._places[found], k=top_k)
            rows[number, : len(best)], scores[number, : len(best)] = found[best], exact[best]
        return rows, scores

    def _checked(self, query_vectors: NDArray[np.float32], top_k: int) -> NDArray[np.float32]:
        check_top_k(top_k)
        queries = np.ascontiguousarray(query_vectors, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.manifest.dim:
            raise UserError(
                f"query_vectors: have shape {queries.shape}, and the vectors of {self.folder} are "
                f"{self.manifest.dim} wide. Fix: encode queries with the model of the index"
            )
        if not np.isfinite(queries).all():
            raise UserError(f"query_vectors: {NO_RANKING}")
        return queries


def check_top_k(top_k: int) -> None:
    """Refuse a number of documents below 1."""
    if top_k < 1:
        raise UserError(f"top_k={top_k}: must be at least 1 (documents a query). Fix: top_k=10")


def _opened(path: Path, manifest: IndexManifest) -> SearchIndex:
    """Open the files of an index, or raise what a damaged file raises."""
    vectors = np.load(path / VECTORS, mmap_mode="r")
    places = np.load(path / PLACES, mmap_mode="r")
    documents = read_corpus(path / DOCUMENTS)
    shape = (manifest.num_documents, manifest.dim)
    if vectors.shape != shape or vectors.dtype != manifest.dtype:
        raise ValueError(f"{VECTORS} holds {vectors.dtype} {vectors.shape}, not {shape}")
    if not len(places) == len(documents) == manifest.num_documents:
        raise ValueError(f"{PLACES} and {DOCUMENTS} have other numbers of documents")
    faiss = None
    if FAISS_FILE in manifest.files:
        index = manifest.index
        faiss = FaissIndex(path / FAISS_FILE, name=index["kind"], settled=index["parameters"])
        if len(faiss) != manifest.num_documents:
            raise ValueError(f"{FAISS_FILE} has {len(faiss)} vectors")
    lexical = None
    if manifest.bm25 is not None:
        lexical = LexicalIndex(
            path, content=cast(Content, manifest.bm25), num_documents=manifest.num_documents
        )
    return SearchIndex(
        path,
        manifest=manifest,
        documents=documents,
        vectors=np.asarray(vectors),
        places=np.asarray(places),
        faiss=faiss,
        lexical=lexical,
    )
