"""Search of an index folder: exact from a mapped file, and faiss beside it.

    python bench/index_search.py --folder /tmp/index --documents 1000000 --kind exact
    python bench/index_search.py --folder /tmp/graph --documents 200000 --kind faiss_hnsw

Vectors are made, [documents, 1024] in float16: directions around a thousand centres, for graphs and
lists find nothing among directions that have no structure. Prints one JSON object. The folder is
removed at the end, or with --keep used by the next call.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quarry.search.index_building import IndexSettings, Origin, build_index
from quarry.search.index_kinds import Exact, FaissFlat, FaissHNSW, FaissIVFPQ
from quarry.search.search_index import SearchIndex
from quarry.types import Document

KINDS = {kind.name: kind for kind in (Exact(), FaissFlat(), FaissHNSW(), FaissIVFPQ())}
DIM = 1024
NUM_CENTRES = 1000
NOISE = 1.0
NUM_QUERIES = 20


class MadeVectors:
    """Vectors that are made when they are read; a slice is the same each time."""

    def __init__(self, number: int, *, seed: int = 0) -> None:
        self.shape = (number, DIM)
        self.dtype = torch.float16
        self._seed = seed
        self._centres = _unit(torch.randn(NUM_CENTRES, DIM, generator=_generator(0)))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Tensor:
        start, stop, _ = rows.indices(len(self))
        generator = _generator(self._seed * 2**40 + start + 1)
        of = torch.randint(NUM_CENTRES, (stop - start,), generator=generator)
        noise = torch.randn(stop - start, DIM, generator=generator) * NOISE / DIM**0.5
        return _unit(self._centres[of] + noise).half()


class MadeDocuments(Sequence[Document]):
    """Documents with an id and few words."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __len__(self) -> int:
        return self._number

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | Sequence[Document]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(self._number))]
        return Document(document_id=str(index), text=f"text {index}")

    def __iter__(self) -> Iterator[Document]:
        return (self[row] for row in range(self._number))


def main() -> None:
    """Build, measure, remove."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--documents", type=int, default=1_000_000)
    arguments.add_argument("--kind", choices=KINDS, default="exact")
    arguments.add_argument("--keep", action="store_true", help="leave the index for another call")
    given = arguments.parse_args()
    try:
        build_s = None
        if not given.folder.exists():
            build_s = _built(given.folder, given.documents, given.kind)
        print(json.dumps({"build_s": build_s} | _measured(given.folder)))
    finally:
        if not given.keep:
            shutil.rmtree(given.folder, ignore_errors=True)


def _built(folder: Path, number: int, kind: str) -> float:
    start = time.perf_counter()
    num_queries = 0 if kind == "exact" else 200
    build_index(
        folder,
        documents=MadeDocuments(number),
        vectors=MadeVectors(number),
        settings=IndexSettings(
            kind=KINDS[kind], dtype="float16", bm25=None, num_recall_queries=num_queries
        ),
        origin=Origin(model={}, contract={"query": {}, "document": {}}, source={}),
    )
    return round(time.perf_counter() - start, 1)


def _measured(folder: Path) -> dict[str, object]:
    queries = MadeVectors(64, seed=1)[:].float().numpy()
    start = time.perf_counter()
    index = SearchIndex.open(folder)
    open_s = time.perf_counter() - start
    manifest = index.manifest
    before = time.process_time()
    times = [_seconds(index, queries[i : i + 1]) for i in range(NUM_QUERIES + 1)]
    cpu_s = (time.process_time() - before) / len(times)
    return {
        "kind": manifest.index,
        "documents": len(index),
        "dim": manifest.dim,
        "gib": round(sum(file.num_bytes for file in manifest.files.values()) / 2**30, 2),
        "open_s": round(open_s, 3),
        "first_query_s": round(times[0], 3),
        "median_query_s": round(statistics.median(times[1:]), 4),
        "cpu_s_a_query": round(cpu_s, 4),
        "best_query_s": round(min(times[1:]), 4),
        "worst_query_s": round(max(times[1:]), 4),
        "64_queries_s": round(_seconds(index, queries), 3),
        "recall": manifest.recall,
        "threads": torch.get_num_threads(),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def _seconds(index: SearchIndex, queries: NDArray[np.float32]) -> float:
    start = time.perf_counter()
    index.search(queries, 10)
    return time.perf_counter() - start


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
