"""The kinds of index: exact, and three of faiss with values that fit the number of documents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quarry.errors import UserError
from quarry.runtime.extras import require
from quarry.runtime.progress import Progress

Matrix = NDArray[np.float16] | NDArray[np.float32]

FAISS_FILE = "faiss.index"
NUM_ROWS_PER_ADD = 16_384
SEED = 0

NUM_POINTS_PER_CENTROID = 64
MIN_POINTS_PER_CENTROID = 39
"""faiss trains a centroid with at most 256 vectors, and warns below 39."""

NUM_BITS = 8
"""Bits of a product quantizer's code: 256 centroids for each part of a vector."""

DIMS_PER_CODE = 4
"""With 8 bits for four numbers of fp16 the codes take an eighth of the vectors."""


class IndexKind(Protocol):
    """A way to search vectors, with its parameters; None: what fits the number of documents."""

    @property
    def name(self) -> str: ...

    @property
    def uses_faiss(self) -> bool: ...

    def settled(self, *, num_documents: int, dim: int) -> Mapping[str, Any]:
        """Return all parameters with their values, for the manifest.

        Raises:
            UserError: a value does not fit the vectors.
        """
        ...

    def write(self, folder: Path, vectors: Matrix, settled: Mapping[str, Any]) -> tuple[str, ...]:
        """Write what a search needs beside the vectors; return the names of the files."""
        ...


@dataclass(frozen=True, kw_only=True)
class Exact:
    """Compares a query with every vector (`retrieval.index.rescored`); needs no file of its own."""

    name = "exact"
    uses_faiss = False

    def settled(self, *, num_documents: int, dim: int) -> Mapping[str, Any]:
        """Return no parameters."""
        return {}

    def write(self, folder: Path, vectors: Matrix, settled: Mapping[str, Any]) -> tuple[str, ...]:
        """Write nothing."""
        return ()


@dataclass(frozen=True, kw_only=True)
class FaissFlat:
    """faiss' own exact search, over a copy of the vectors in fp32."""

    name = "faiss_flat"
    uses_faiss = True

    def settled(self, *, num_documents: int, dim: int) -> Mapping[str, Any]:
        """Return no parameters but how many documents are scored again."""
        return {"num_rescored": 0}

    def write(self, folder: Path, vectors: Matrix, settled: Mapping[str, Any]) -> tuple[str, ...]:
        """Write faiss' index."""
        import faiss

        return _filled(folder, faiss.IndexFlatIP(vectors.shape[1]), vectors)


@dataclass(frozen=True, kw_only=True)
class FaissIVFPQ:
    """Inverted lists of product-quantized vectors (Jegou et al. 2011): least memory.

    What it finds is scored again with the stored vectors.

    Args:
        nlist: number of inverted lists; None: four times the root of the number of documents, with
            39 or more for each.
        m: bytes of a code; divides the width of the vectors. None: one for four numbers.
        nprobe: lists that a query looks into; None: an eighth of them, 8 to 128.
        num_rescored: documents that are found for a query and scored again; None: ten times those
            asked for.
    """

    nlist: int | None = None
    m: int | None = None
    nprobe: int | None = None
    num_rescored: int | None = None
    name = "faiss_ivfpq"
    uses_faiss = True

    def settled(self, *, num_documents: int, dim: int) -> Mapping[str, Any]:
        """Return nlist, m, nprobe, num_bits and num_rescored."""
        most = max(num_documents // MIN_POINTS_PER_CENTROID, 1)
        nlist = self.nlist or max(min(round(4 * math.sqrt(num_documents)), most), 1)
        if nlist > num_documents:
            raise UserError(
                f"task.index.nlist={nlist}: there are {num_documents} documents (a list has one or "
                "more). Fix: task.index.nlist=null"
            )
        m = self.m or _divisor(dim)
        if dim % m:
            raise UserError(
                f"task.index.m={m}: does not divide the vectors' width {dim} (each byte stands for "
                f"an equal part). Fix: task.index.m={_divisor(dim)}"
            )
        nprobe = self.nprobe or min(max(nlist // 8, 8), 128)
        return {
            "nlist": nlist,
            "m": m,
            "num_bits": min(NUM_BITS, max(int(math.log2(num_documents)), 1)),
            "nprobe": min(nprobe, nlist),
            "num_rescored": self.num_rescored,
        }

    def write(self, folder: Path, vectors: Matrix, settled: Mapping[str, Any]) -> tuple[str, ...]:
        """Train and write faiss' index."""
        import faiss

        dim, nlist, bits = vectors.shape[1], settled["nlist"], settled["num_bits"]
        coarse = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFPQ(coarse, dim, nlist, settled["m"], bits, faiss.METRIC_INNER_PRODUCT)
        # of small corpora faiss would warn once for each part of a vector
        for clustering in (index.cp, index.pq.cp):
            clustering.min_points_per_centroid = 1
        index.train(_sample(vectors, at_least=2**bits, wanted=NUM_POINTS_PER_CENTROID * nlist))
        return _filled(folder, index, vectors)


@dataclass(frozen=True, kw_only=True)
class FaissHNSW:
    """A graph of near neighbours (Malkov and Yashunin 2018): fastest, with most memory.

    Args:
        m: neighbours of a document in the graph, twice as many in its lowest layer.
        ef_construction: candidates while it is built: more are slower and better.
        ef_search: candidates of a query; at least as many as documents are asked for.
        num_rescored: documents that are found for a query and scored again; None: as many as
            `ef_search`.
    """

    m: int = 32
    ef_construction: int = 200
    ef_search: int = 128
    num_rescored: int | None = None
    name = "faiss_hnsw"
    uses_faiss = True

    def settled(self, *, num_documents: int, dim: int) -> Mapping[str, Any]:
        """Return m, ef_construction, ef_search and num_rescored."""
        if self.m < 2:
            raise UserError(f"task.index.m={self.m}: a graph needs 2 neighbours or more. Fix: 32")
        return {
            "m": self.m,
            "ef_construction": self.ef_construction,
            "ef_search": self.ef_search,
            "num_rescored": self.ef_search if self.num_rescored is None else self.num_rescored,
        }

    def write(self, folder: Path, vectors: Matrix, settled: Mapping[str, Any]) -> tuple[str, ...]:
        """Build and write faiss' index; it holds the vectors in their own dtype."""
        import faiss

        dim, metric = vectors.shape[1], faiss.METRIC_INNER_PRODUCT
        if vectors.dtype == np.float16:
            half: Any = faiss.ScalarQuantizer.QT_fp16
            index: Any = faiss.IndexHNSWSQ(dim, half, settled["m"], metric)
            index.train(np.zeros((1, dim), dtype=np.float32))
        else:
            index = faiss.IndexHNSWFlat(dim, settled["m"], metric)
        index.hnsw.efConstruction = settled["ef_construction"]
        return _filled(folder, index, vectors)


class FaissIndex:
    """An index of faiss that is read from an index folder.

    Args:
        path: file of faiss.
        settled: parameters in the manifest.

    Raises:
        UserError: faiss is not installed.
        RuntimeError: the file is damaged.
    """

    def __init__(self, path: Path, *, name: str, settled: Mapping[str, Any]) -> None:
        require_faiss(name)
        import faiss

        index: Any = faiss.read_index(str(path))
        self._index = index
        self._settled = settled
        if "nprobe" in settled:
            self._index.nprobe = settled["nprobe"]

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def rows(self, query: NDArray[np.float32], *, top_k: int) -> NDArray[np.int64]:
        """Return rows that may be the best, without order: at least `top_k` if as many are found.

        Args:
            query: [dim].
        """
        rescored = self._settled["num_rescored"]
        wanted = max(top_k, 10 * top_k if rescored is None else rescored)
        wanted = min(wanted, len(self))
        if "ef_search" in self._settled:
            self._index.hnsw.efSearch = max(self._settled["ef_search"], wanted)
        _, found = self._index.search(query[None], wanted)
        rows: NDArray[np.int64] = found[0]
        return rows[rows >= 0]


def require_faiss(name: str) -> None:
    """Refuse a kind of faiss' where that is not installed, with the pip command."""
    require("faiss", what=f"task/index={name}")


def _divisor(dim: int) -> int:
    """Return the largest divisor of a width that is at most a number for four dimensions."""
    return next(m for m in range(max(dim // DIMS_PER_CODE, 1), 0, -1) if dim % m == 0)


def _sample(vectors: Matrix, *, at_least: int, wanted: int) -> NDArray[np.float32]:
    """Return vectors to train with, drawn without replacement; of too few, each several times."""
    size = min(len(vectors), max(wanted, 256 * 256))
    drawn = np.random.default_rng(SEED).choice(len(vectors), size, replace=False)
    sample = vectors[np.sort(drawn)].astype(np.float32)
    return np.tile(sample, (math.ceil(at_least / size), 1))


def _filled(folder: Path, index: Any, vectors: Matrix) -> tuple[str, ...]:
    """Add all vectors, a part at a time, and write the index."""
    import faiss

    with Progress(label="faiss", total=len(vectors), units="vectors") as progress:
        for start in range(0, len(vectors), NUM_ROWS_PER_ADD):
            part = vectors[start : start + NUM_ROWS_PER_ADD].astype(np.float32)
            index.add(part)
            progress.add(len(part))
    faiss.write_index(index, str(folder / FAISS_FILE))
    return (FAISS_FILE,)
