"""Store the embeddings of a corpus until they are searched: in memory or in a temporary file."""

from __future__ import annotations

import logging
import mmap
import os
import platform
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import psutil
from numpy.typing import NDArray
from torch import Tensor

from quarry.distributed import world
from quarry.retrieval.embeddings import EmbeddingShare, GatheredEmbeddings
from quarry.retrieval.store.conversion import converted
from quarry.retrieval.store.room import check_room, explained, remedies_of_corpus
from quarry.retrieval.store.shelf import DTYPES
from quarry.retrieval.store.vector_files import write_all
from quarry.runtime.disk_errors import readable_size

logger = logging.getLogger(__name__)

LARGEST_SHARE_OF_MEMORY = 0.25
"""Share of the available host memory that a corpus may take with corpus_on_disk=auto."""

REMEDY = "evaluation.corpus_dtype=float32"


class CorpusEmbeddings(Protocol):
    """Receives an encoder's batches: the share of a corpus that one rank encodes."""

    def add(self, items: NDArray[np.int64], embeddings: Tensor) -> None:
        """Store a batch.

        Args:
            items: [num_texts] positions in the corpus; none is repeated.
            embeddings: [num_texts, dim], fp32, on the CPU.

        Raises:
            UserError: there is no space, or a number is too large for the dtype.
        """
        ...

    def share(self) -> EmbeddingShare:
        """Return all batches, in the order of the corpus. Call this once, at the end."""
        ...


class MemoryCorpus:
    """Embeddings in host memory; rows of other ranks take none.

    Args:
        num_texts: size of the full corpus.
        dim: dimension of an embedding.
        dtype: float32 or float16.
        what: name of the corpus, for messages.
    """

    def __init__(self, *, num_texts: int, dim: int, dtype: str, what: str) -> None:
        # numpy's zeros take no memory before something is written
        self._embeddings = np.zeros((num_texts, dim), dtype=dtype)
        self._is_own = np.zeros(num_texts, dtype=bool)
        self._what = what

    def add(self, items: NDArray[np.int64], embeddings: Tensor) -> None:
        self._embeddings[items] = converted(
            embeddings, self._embeddings.dtype, what=self._what, remedy=REMEDY
        )
        self._is_own[items] = True

    def share(self) -> EmbeddingShare:
        items = np.flatnonzero(self._is_own)
        return _share(self._embeddings, items=items, rows=items)


class DiskCorpus:
    """Embeddings in a temporary file, in order of arrival, memory-mapped for search.

    The file has no name, so the system removes it with the last object that maps it, and when the
    process is killed. It is written by system calls, not through a map: on a full disk a call
    raises an error, whereas a map ends the process.

    Args:
        folder: folder on whose disk the file is; created if missing.
        dim: dimension of an embedding.
        dtype: float32 or float16.
        what: name of the corpus, for messages.

    Raises:
        UserError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, *, dim: int, dtype: str, what: str) -> None:
        self._dim = dim
        self._dtype = np.dtype(dtype)
        self._what = what
        self._items: list[NDArray[np.int64]] = []
        self._num_bytes = 0
        self._explained = partial(
            explained, folder, what=what, remedies=remedies_of_corpus(self._dtype.name)
        )
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)  # another node may not have it
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115

    def add(self, items: NDArray[np.int64], embeddings: Tensor) -> None:
        vectors = converted(embeddings, self._dtype, what=self._what, remedy=REMEDY)
        with self._explained():
            try:
                write_all(self._file.fileno(), vectors.data.cast("B"), self._num_bytes)
            except OSError:
                self._file.close()
                raise
        self._num_bytes += vectors.nbytes
        self._items.append(items)

    def share(self) -> EmbeddingShare:
        items = np.concatenate([np.empty(0, dtype=np.int64), *self._items])
        order = np.argsort(items)
        return _share(self._mapped(), items=items[order], rows=order)

    def _mapped(self) -> NDArray[np.floating]:
        if not self._num_bytes:  # an empty file cannot be mapped
            return np.empty((0, self._dim), dtype=self._dtype)
        with self._file, self._explained():
            # a network file system may report a full disk only here
            os.fsync(self._file.fileno())
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, dtype=self._dtype).reshape(-1, self._dim)


class CorpusStorage:
    """Creates storage for the embeddings of each corpus, and logs which kind.

    Args:
        folder: folder for files; it must exist when the first one is opened.
        on_disk: "auto": on disk if the embeddings of all ranks of a node take more than a quarter
            of the memory that is available there.
        dtype: float32 or float16, on disk and in memory.
    """

    def __init__(
        self, *, folder: Path, on_disk: bool | Literal["auto"] = "auto", dtype: str = "float32"
    ) -> None:
        self.folder = folder
        self.on_disk = on_disk
        self.dtype = dtype
        self._told: set[tuple[str, bool]] = set()

    def open(self, *, num_texts: int, dim: int, what: str) -> CorpusEmbeddings:
        """Return empty storage for a corpus. All ranks must call this, and receive the same kind.

        Args:
            num_texts: texts of all ranks.
            dim: dimension of an embedding.
            what: name of the corpus, for the log and messages.

        Raises:
            UserError: the disk has no space for the embeddings of all ranks, or is not writable.
        """
        num_bytes = num_texts * dim * np.dtype(self.dtype).itemsize
        what_it_is = f"{what} ({num_texts:,} texts x {dim} {self.dtype})"
        is_on_disk, why = self._choice(num_bytes)
        if (what, is_on_disk) not in self._told:
            self._told.add((what, is_on_disk))
            where = f"on disk, in {self.folder}" if is_on_disk else "in memory"
            logger.info(
                "%s: %s of embeddings %s: %s", what_it_is, readable_size(num_bytes), where, why
            )
        if not is_on_disk:
            return MemoryCorpus(num_texts=num_texts, dim=dim, dtype=self.dtype, what=what_it_is)
        check = partial(check_room, self.folder, num_bytes=num_bytes, what=what_it_is)
        world.first_does(partial(check, remedies=remedies_of_corpus(self.dtype)))
        return DiskCorpus(self.folder, dim=dim, dtype=self.dtype, what=what_it_is)

    def _choice(self, num_bytes: int) -> tuple[bool, str]:
        """Return whether to use the disk, and why; the same on all ranks."""
        if self.on_disk != "auto":
            return self.on_disk, f"evaluation.corpus_on_disk={str(self.on_disk).lower()}"
        nodes = world.gathered((platform.node(), psutil.virtual_memory().available))
        is_on_disk, available = exceeds_memory(num_bytes, nodes)
        is_more = "more than" if is_on_disk else "at most"
        return is_on_disk, (
            f"{is_more} {LARGEST_SHARE_OF_MEMORY:.0%} of the {readable_size(available)} of memory "
            "that are available (evaluation.corpus_on_disk=auto)"
        )


def exceeds_memory(num_bytes: int, ranks: Sequence[tuple[str, int]]) -> tuple[bool, int]:
    """Return whether a corpus takes too much of a node's memory, and what is available there.

    Args:
        num_bytes: size of the embeddings of all ranks, which have equal shares.
        ranks: (name of its node, available bytes) of each rank.

    Returns:
        The values of the node with the least memory for its ranks.
    """
    names = [name for name, _ in ranks]
    need, available = max(
        ((num_bytes * names.count(name) / len(ranks), available) for name, available in ranks),
        key=lambda pair: pair[0] / max(pair[1], 1),
    )
    return need > LARGEST_SHARE_OF_MEMORY * available, available


def _share(
    embeddings: NDArray[np.floating], *, items: NDArray[np.int64], rows: NDArray[np.int64]
) -> EmbeddingShare:
    """Return these rows of one array as the embeddings of these items."""
    gathered = GatheredEmbeddings(
        parts=[(0, embeddings)],
        rows=rows,
        dim=embeddings.shape[1],
        dtype=DTYPES[embeddings.dtype.name],
    )
    return EmbeddingShare(items=items, embeddings=gathered)
