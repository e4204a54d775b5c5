"""How much exact search adds to its matrix products, on one CUDA device.

    python bench/probe_search.py [--json probe_search.json]

Random unit vectors, made on the device; the products alone have the same inputs, chunks and output
type (fp32). The results are compared with torch.topk over all scores of some of the queries.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from quarry.retrieval.index.exact import NUM_DOCUMENTS_ON_CUDA, ExactIndex, inner_products
from quarry.retrieval.index.top_k import TopK

logger = logging.getLogger("probe_search")

DIM, TOP_K = 3_584, 100
SIZES = [(6_980, 1_000_000), (300, 5_000)]
NUM_CHECKED = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One size in one dtype; the best of the timed runs, in seconds, and the memory they took."""

    queries: int
    documents: int
    dtype: str
    chunk: int
    products_s: float
    search_s: float
    ratio: float
    from_memory_s: float | None
    peak_extra_gib: float


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    parser.add_argument("--chunks", type=int, nargs="+", default=[NUM_DOCUMENTS_ON_CUDA])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs a CUDA device")
    logger.info("%s, torch %s", torch.cuda.get_device_name(), torch.__version__)
    logger.info("queries x documents x %d, top %d; seconds, best of the runs", DIM, TOP_K)
    logger.info("(search fills the last chunk up, so five thousand cost it a whole one)")
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        for num_queries, num_documents in SIZES:
            queries, documents = (
                unit_vectors(num_queries, dtype),
                unit_vectors(num_documents, dtype),
            )
            # a million products in fp32 take seconds
            repeats = arguments.repeats if dtype == torch.bfloat16 or num_queries < 1000 else 2
            for chunk in arguments.chunks:
                rows.append(measure(queries, documents, chunk=chunk, repeats=repeats))
                logger.info("%s", describe(rows[-1]))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def measure(queries: Tensor, documents: Tensor, *, chunk: int, repeats: int) -> Row:
    """Times and checks one search; raises AssertionError if its result is wrong."""
    index = ExactIndex(num_documents_per_chunk=chunk)
    places = torch.arange(len(documents))

    def search(documents: Tensor = documents) -> TopK:
        return index.top_k(
            queries=queries, documents=documents, places=places, top_k=TOP_K, device="cuda"
        )

    def products() -> None:
        for part in documents.split(chunk):
            inner_products(queries, part)

    products_s = best_time(products, repeats)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    search_s = best_time(search, repeats)
    peak = torch.cuda.max_memory_allocated() - before
    check(search(), queries, documents)
    from_memory_s = None
    if documents.dtype == torch.bfloat16:
        in_memory = documents.cpu()
        from_memory_s = best_time(lambda: search(in_memory), 2)
        check(search(in_memory), queries, documents)
    return Row(
        queries=len(queries),
        documents=len(documents),
        dtype=str(documents.dtype).removeprefix("torch."),
        chunk=chunk,
        products_s=products_s,
        search_s=search_s,
        ratio=search_s / products_s,
        from_memory_s=from_memory_s,
        peak_extra_gib=peak / 2**30,
    )


def describe(row: Row) -> str:
    from_memory = f", from CPU memory {row.from_memory_s:.4f}" if row.from_memory_s else ""
    return (
        f"{row.queries:>5} x {row.documents:>9,} {row.dtype:<8} chunk {row.chunk:>7,}: "
        f"products {row.products_s:.4f}, search {row.search_s:.4f}, ratio {row.ratio:.2f}"
        f"{from_memory}, memory beside the embeddings {row.peak_extra_gib:.2f} GiB"
    )


def check(best: TopK, queries: Tensor, documents: Tensor) -> None:
    """The same scores as torch.topk over all products, and each is that of its document.

    3e-6: fp32 sums of 3,584 products in another order, for vectors of length 1.
    """
    some = torch.arange(0, len(queries), max(len(queries) // NUM_CHECKED, 1))
    scores = torch.cat([inner_products(queries[some], part) for part in documents.split(65_536)], 1)
    expected = scores.topk(TOP_K, dim=1).values
    found, places = best.scores[some].cuda(), best.places[some].cuda()
    torch.testing.assert_close(found, expected, atol=3e-6, rtol=0)
    torch.testing.assert_close(found, scores.gather(1, places), atol=3e-6, rtol=0)
    assert all(len(set(row)) == TOP_K for row in places.tolist())


def unit_vectors(num_vectors: int, dtype: torch.dtype) -> Tensor:
    """Seeded by their number; made a part at a time, for fp32 copies of all would not fit."""
    generator = torch.Generator("cuda").manual_seed(num_vectors)
    vectors = torch.empty(num_vectors, DIM, dtype=dtype, device="cuda")
    for part in vectors.split(65_536):
        part.copy_(normalize(torch.randn(part.shape, generator=generator, device="cuda"), dim=1))
    return vectors


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the quickest of `repeats` calls, after one that is not timed."""
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


if __name__ == "__main__":
    main()
