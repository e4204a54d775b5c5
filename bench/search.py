"""Time exact search and its matrix products alone, on random unit vectors.

    python bench/search.py [--num-queries 6980] [--num-documents 1000000] [--dim 3584]

The products alone have the same inputs, chunks and output type (fp32). The result is compared with
`torch.topk` over all scores of some of the queries.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torch.nn.functional import normalize

from measuring import best_time, peak, reset_peak
from quarry.retrieval.index.exact import (
    NUM_DOCUMENTS_ELSEWHERE,
    NUM_DOCUMENTS_ON_CUDA,
    ExactIndex,
    inner_products,
)
from quarry.retrieval.index.top_k import TopK
from result_line import hand_over

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
NUM_CHECKED = 16
NUM_VECTORS_DRAWN = 65_536
"""Vectors drawn at a time: an fp32 copy of all would not fit."""


def unit_vectors(num_vectors: int, dim: int) -> Tensor:
    """Return random unit vectors, [num_vectors, dim], seeded by their number."""
    generator = torch.Generator(DEVICE).manual_seed(num_vectors)
    vectors = torch.empty(num_vectors, dim, dtype=DTYPE, device=DEVICE)
    for part in vectors.split(NUM_VECTORS_DRAWN):
        part.copy_(normalize(torch.randn(part.shape, generator=generator, device=DEVICE), dim=1))
    return vectors


def check(best: TopK, queries: Tensor, documents: Tensor, *, top_k: int) -> None:
    """Check that scores equal torch.topk's over all products, and belong to their documents.

    The tolerance 3e-6 allows for the order of fp32 sums of 3,584 products of unit vectors.
    """
    some = torch.arange(0, len(queries), max(len(queries) // NUM_CHECKED, 1))
    parts = documents.split(NUM_VECTORS_DRAWN)
    scores = torch.cat([inner_products(queries[some], part) for part in parts], dim=1)
    expected = scores.topk(top_k, dim=1).values
    found, places = best.scores[some].to(DEVICE), best.places[some].to(DEVICE)
    torch.testing.assert_close(found, expected, atol=3e-6, rtol=0)
    torch.testing.assert_close(found, scores.gather(1, places), atol=3e-6, rtol=0)
    assert all(len(set(row)) == top_k for row in places.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-queries", type=int, default=6_980)
    parser.add_argument("--num-documents", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=3_584)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--num-repeats", type=int, default=5)
    arguments = parser.parse_args()
    queries = unit_vectors(arguments.num_queries, arguments.dim)
    documents = unit_vectors(arguments.num_documents, arguments.dim)
    index, places = ExactIndex(), torch.arange(len(documents))
    chunk = NUM_DOCUMENTS_ON_CUDA if DEVICE == "cuda" else NUM_DOCUMENTS_ELSEWHERE

    def search(corpus: Tensor = documents) -> TopK:
        return index.top_k(
            queries=queries, documents=corpus, places=places, top_k=arguments.top_k, device=DEVICE
        )

    def products() -> None:
        for part in documents.split(chunk):
            inner_products(queries, part)

    check(search(), queries, documents, top_k=arguments.top_k)
    result = {"products_s": best_time(products, num_repeats=arguments.num_repeats)}
    reset_peak()
    result["search_s"] = best_time(search, num_repeats=arguments.num_repeats)
    result |= peak()
    if DEVICE == "cuda":
        in_memory = documents.cpu()
        result["from_memory_s"] = best_time(lambda: search(in_memory), num_repeats=2)
    hand_over(result)


if __name__ == "__main__":
    main()
