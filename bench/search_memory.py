"""Show that a search from the embedding store takes memory independent of the corpus size.

    python bench/search_memory.py [--num-documents 2000000] [--dim 1024] [--num-queries 300]

It fills a store with random unit vectors in float16 (4 GB by default; removed at the end). A new
process then searches it by the hashes of the texts, as `eval.py` does: it opens the store, verifies
every checksum, and searches all documents. It samples its own anonymous memory. Memory mapped from
files does not count, since the system can reclaim it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from quarry.retrieval.embeddings import GatheredEmbeddings
from quarry.retrieval.index.exact import ExactIndex
from quarry.retrieval.store.shelf import Shelf
from quarry.retrieval.unique_texts import HASH, NUM_HASH_BYTES
from quarry.types import Run
from result_line import Result, hand_over

NUM_TEXTS_PER_BATCH = 4_096
NUM_CHECKED = 4
SECONDS_BETWEEN_SAMPLES = 0.02


class AnonymousMemory:
    """Sample this process's anonymous memory until it is closed.

    Attributes:
        peak: the largest sample, in bytes.
    """

    def __init__(self) -> None:
        self.peak = anonymous_memory()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(SECONDS_BETWEEN_SAMPLES):
            self.peak = max(self.peak, anonymous_memory())


def anonymous_memory() -> int:
    """Return this process's anonymous memory in bytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def text_hashes(num_documents: int) -> NDArray[np.bytes_]:
    digests = bytearray()
    for number in range(num_documents):
        text = str(number).encode()
        digests += hashlib.blake2b(text, digest_size=NUM_HASH_BYTES).digest()
    return np.frombuffer(bytes(digests), dtype=HASH)


def shelf(folder: Path, dim: int) -> Shelf:
    return Shelf(store=folder, contract={"model": "none"}, dim=dim, dtype="float16", made_by={})


def random_vectors(num_vectors: int, dim: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(num_vectors, dim, generator=generator), dim=1)


def fill(folder: Path, *, num_documents: int, dim: int) -> None:
    """Fill the store in batches of shuffled rows, as from a plan sorted by length."""
    hashes = text_hashes(num_documents)
    store = shelf(folder, dim)
    with store.writable("bench", missing=hashes, plan={}, what="bench") as finished:
        _, writer = store.writer("bench", finished=finished, what="bench")
        for start in range(0, num_documents, NUM_TEXTS_PER_BATCH):
            stop = min(start + NUM_TEXTS_PER_BATCH, num_documents)
            rows = start + np.random.default_rng(start).permutation(stop - start)
            writer.write(start, rows, random_vectors(len(rows), dim, seed=start))


def measure(folder: Path, *, num_documents: int, num_queries: int, dim: int, top_k: int) -> Result:
    before = anonymous_memory()
    queries = random_vectors(num_queries, dim, seed=num_documents).half()
    memory = AnonymousMemory()
    with contextlib.closing(memory):
        start = time.perf_counter()
        store = shelf(folder, dim)
        found = store.find(text_hashes(num_documents))
        assert not found.is_missing.any()
        documents = store.embeddings(found, np.arange(num_documents))
        opened = time.perf_counter()
        run = ExactIndex().search(
            query_ids=[str(number) for number in range(num_queries)],
            queries=queries,
            document_ids=[str(number) for number in range(num_documents)],
            documents=documents,
            top_k=top_k,
        )
        searched = time.perf_counter()
    check(run, queries, documents, top_k=top_k)
    return {
        "num_documents": num_documents,
        "dim": dim,
        "num_queries": num_queries,
        "gib_on_disk": num_documents * dim * 2 / 2**30,
        "open_and_verify_s": opened - start,
        "search_s": searched - opened,
        "anonymous_gib_at_start": before / 2**30,
        "peak_anonymous_gib": memory.peak / 2**30,
    }


def check(run: Run, queries: Tensor, documents: GatheredEmbeddings, *, top_k: int) -> None:
    """Check that the scores of some queries are the largest of all products.

    The tolerance 1e-6 allows for the order of fp32 sums of unit vectors.
    """
    some = queries[:NUM_CHECKED].float()
    best = torch.full((len(some), top_k), -torch.inf)
    for start in range(0, len(documents), NUM_TEXTS_PER_BATCH):
        scores = some @ documents[start : start + NUM_TEXTS_PER_BATCH].float().T
        best = torch.cat([best, scores], dim=1).topk(top_k, dim=1).values
    found = torch.tensor([list(run[str(number)].values()) for number in range(len(some))])
    torch.testing.assert_close(found, best, atol=1e-6, rtol=0)


@contextlib.contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="quarry-bench-", dir=folder) as name:
        yield Path(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-documents", type=int, default=2_000_000)
    parser.add_argument("--num-queries", type=int, default=300)
    parser.add_argument("--dim", type=int, default=1_024)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--scratch", type=Path, help="on the disk to be measured")
    parser.add_argument("--store", type=Path, help="search this one, which was filled before")
    arguments = parser.parse_args()
    num_documents, dim = arguments.num_documents, arguments.dim
    if arguments.store is not None:
        hand_over(
            measure(
                arguments.store,
                num_documents=num_documents,
                num_queries=arguments.num_queries,
                dim=dim,
                top_k=arguments.top_k,
            )
        )
        return
    with scratch(arguments.scratch) as folder:
        fill(folder, num_documents=num_documents, dim=dim)
        command = [sys.executable, __file__, *sys.argv[1:], "--store", str(folder)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
