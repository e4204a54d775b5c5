"""Time exact search at the size of mining for MS MARCO: its training queries, all its passages.

    python bench/large_search.py [--num-queries 491007] [--num-documents 8841823] [--dim 3584]

Embeddings are random unit vectors of half precision in the host's memory. A sample of the queries
is searched again by brute force, in products of fp32 and of fp64, over all documents at once.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor
from torch.nn.functional import normalize

from measuring import peak, reset_peak
from quarry.retrieval.index.exact import ExactIndex
from quarry.retrieval.index.top_k import TopK
from result_line import hand_over

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NUM_AT_A_TIME = 65_536
SCORE_BYTES = 36 * 2**30
"""Memory for scores of sampled queries with all documents, which are held at a time."""

MAX_GAP = 1e-6
"""Largest difference of two scores that sums in another order may swap."""


def unit_vectors(num_vectors: int, dim: int, *, seed: int) -> Tensor:
    """Return random unit vectors on the CPU, float16 [num_vectors, dim]."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    vectors = torch.empty(num_vectors, dim, dtype=torch.float16)
    for part in vectors.split(NUM_AT_A_TIME):
        drawn = torch.randn(part.shape, generator=generator, device=DEVICE)
        part.copy_(normalize(drawn, dim=1))
    return vectors


def brute_force(
    queries: Tensor, documents: Tensor, *, top_k: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return scores and places of the best documents: all products, then one sort of each row."""
    scores = torch.empty(len(queries), len(documents), dtype=dtype, device=DEVICE)
    on_device = queries.to(DEVICE, dtype)
    for start in range(0, len(documents), NUM_AT_A_TIME):
        part = documents[start : start + NUM_AT_A_TIME].to(DEVICE).to(dtype)
        scores[:, start : start + len(part)] = on_device @ part.T
    best = scores.topk(top_k, dim=1)
    return best.values.cpu(), best.indices.cpu()


def differences(
    best: TopK, sample: Tensor, queries: Tensor, documents: Tensor, *, dtype: torch.dtype
) -> dict[str, float]:
    """Compare a sample with brute force; a place that differs must be within `MAX_GAP`."""
    torch.backends.cuda.matmul.allow_tf32 = False
    num_other, num_sets, largest = 0, 0, 0.0
    num_rows = max(SCORE_BYTES // (len(documents) * dtype.itemsize), 1)
    for rows in sample.split(num_rows):
        top_k = best.places.shape[1]
        scores, places = brute_force(queries[rows], documents, top_k=top_k, dtype=dtype)
        other = places != best.places[rows]
        num_other += int(other.sum())
        sorted_sets = (places.sort(dim=1).values, best.places[rows].sort(dim=1).values)
        num_sets += int((sorted_sets[0] != sorted_sets[1]).any(dim=1).sum())
        largest = max(largest, float((scores - best.scores[rows].to(scores.dtype)).abs().max()))
    assert largest <= MAX_GAP, f"scores differ by {largest}"
    return {"num_other_places": num_other, "num_other_sets": num_sets, "largest_gap": largest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-queries", type=int, default=491_007)
    parser.add_argument("--num-documents", type=int, default=8_841_823)
    parser.add_argument("--dim", type=int, default=3_584)
    parser.add_argument("--top-k", type=int, default=200)
    parser.add_argument("--num-sampled", type=int, default=1_000)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    documents = unit_vectors(arguments.num_documents, arguments.dim, seed=1)
    queries = unit_vectors(arguments.num_queries, arguments.dim, seed=2)
    result: dict[str, float] = {"drawing_s": time.perf_counter() - begin}
    index, places = ExactIndex(), torch.arange(len(documents))
    index.top_k(  # first use of the device and its libraries
        queries=queries[:8192], documents=documents[:NUM_AT_A_TIME], top_k=arguments.top_k,
        places=places[:NUM_AT_A_TIME], device=DEVICE,
    )  # fmt: skip
    reset_peak()
    begin = time.perf_counter()
    best = index.top_k(
        queries=queries, documents=documents, places=places, top_k=arguments.top_k, device=DEVICE
    )
    result["search_s"] = time.perf_counter() - begin
    result |= peak()
    hand_over(result)
    generator = torch.Generator().manual_seed(3)
    sample = torch.randperm(len(queries), generator=generator)[: arguments.num_sampled]
    for dtype in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        found = differences(best, sample, queries, documents, dtype=dtype)
        hand_over({f"{name}_{key}": value for key, value in found.items()})


if __name__ == "__main__":
    main()
