"""Search exactly: every query against every document, in chunks, with a running top k."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quarry.errors import UserError
from quarry.retrieval.embeddings import Embeddings
from quarry.retrieval.index.device_chunks import device_chunks
from quarry.retrieval.index.top_k import RunningTopK, TopK, exchange_top_k
from quarry.retrieval.tie_breaking import tie_order
from quarry.runtime.progress import Progress
from quarry.types import Run

Array = NDArray[np.float32] | NDArray[np.float16]

NUM_DOCUMENTS_ON_CUDA = 65_536
NUM_DOCUMENTS_ELSEWHERE = 8_192


class ExactIndex:
    """Inner-product search over embeddings, exact and with one fixed order.

    Equal scores rank by document id, descending, as in trec_eval. Scores are fp32 from sums in
    fp32, whatever the dtype of the embeddings: in bf16 distinct scores would tie. Products of half
    precision are exact there; those of fp32 are computed in fp32 itself, not in TF32.

    All products have one shape, so a document has the same score anywhere in a corpus or in a share
    of it. The device holds at a time the scores of one chunk of queries with one of documents (2
    GiB on CUDA by default), three chunks of documents, of queries, and the result.

    Args:
        num_documents_per_chunk: documents compared at a time. None: 65,536 on CUDA, else 8,192.
        num_queries_per_chunk: queries compared at a time.

    Raises:
        UserError: a chunk size is below 1.
    """

    def __init__(
        self, *, num_documents_per_chunk: int | None = None, num_queries_per_chunk: int = 8_192
    ) -> None:
        for name, number in (
            ("num_documents_per_chunk", num_documents_per_chunk),
            ("num_queries_per_chunk", num_queries_per_chunk),
        ):
            if number is not None and number < 1:
                raise UserError(f"{name}={number} must be at least 1; it bounds memory alone")
        self.num_documents_per_chunk = num_documents_per_chunk
        self.num_queries_per_chunk = num_queries_per_chunk

    def search(
        self,
        *,
        query_ids: Sequence[str],
        queries: Embeddings | Array,
        document_ids: Sequence[str],
        documents: Embeddings | Array,
        share: NDArray[np.int64] | None = None,
        top_k: int,
        device: torch.device | str = "cpu",
        label: str = "search",
    ) -> Run:
        """Return the `top_k` best documents of each query; other arguments as in `top_k`.

        Args:
            document_ids: ids of the full corpus.
            share: [num_documents] positions in it of the documents that this rank searches; every
                rank has its own, and all receive the same result. None: all documents.
            label: name of the progress.
        """
        places = tie_order(document_ids)
        best = self.top_k(
            queries=queries,
            documents=documents,
            places=torch.from_numpy(places if share is None else places[share]),
            top_k=top_k,
            device=device,
            label=label,
        )
        if share is not None:
            best = exchange_top_k(best, top_k=min(top_k, len(document_ids)), device=device)
        ids = [document_ids[row] for row in np.argsort(places)]
        return {
            query_id: {ids[place]: score for place, score in zip(*ranked, strict=True)}
            for query_id, *ranked in zip(
                query_ids, best.places.tolist(), best.scores.tolist(), strict=True
            )
        }

    def top_k(
        self,
        *,
        queries: Embeddings | Array,
        documents: Embeddings | Array,
        places: Tensor,
        top_k: int,
        device: torch.device | str = "cpu",
        label: str = "search",
    ) -> TopK:
        """Return each query's best documents on the CPU: [num_queries, min(top_k, num_documents)].

        A corpus in shares is searched share by share, with its documents' places in the full
        corpus, and `merge_top_k` merges the results.

        Args:
            queries: [num_queries, dim], on the CPU or on `device`; may be mapped from files.
            documents: [num_documents, dim], likewise. On CUDA half precision is fastest, if the
                queries have it, too.
            places: [num_documents] int64, the documents' places in `tie_order` of the full corpus.
            device: device that computes the products.
            label: name of the progress.

        Raises:
            UserError: a score is NaN.
        """
        device = torch.device(device)
        all_queries, corpus = _as_embeddings(queries), _as_embeddings(documents)
        num_queries, most = len(all_queries), self.num_queries_per_chunk
        if num_queries <= most:
            all_queries = all_queries[:].to(device)
        groups = [
            RunningTopK(num_queries=min(most, num_queries - start), top_k=top_k, device=device)
            for start in range(0, max(num_queries, 1), most)
        ]
        size = self.num_documents_per_chunk or (
            NUM_DOCUMENTS_ON_CUDA if device.type == "cuda" else NUM_DOCUMENTS_ELSEWHERE
        )
        if num_queries and len(corpus):
            chunks = device_chunks(corpus, size=size, device=device)
            with Progress(label=label, total=len(corpus), units="documents") as progress:
                for chunk, part in zip(chunks, places.to(device).split(size), strict=True):
                    self._add_chunk(groups, all_queries, chunk, part)
                    progress.add(len(part))
        best = [group.result(num_documents=len(corpus)) for group in groups]
        return TopK(
            scores=torch.cat([part.scores.cpu() for part in best]),
            places=torch.cat([part.places.cpu() for part in best]),
        )

    def _add_chunk(
        self, groups: Sequence[RunningTopK], queries: Embeddings, documents: Tensor, places: Tensor
    ) -> None:
        size = min(self.num_queries_per_chunk, len(queries))
        rows = device_chunks(queries, size=size, device=documents.device)
        for group, filled in zip(groups, rows, strict=True):
            group.add(inner_products(filled[: group.num_queries], documents), places)


def inner_products(queries: Tensor, documents: Tensor) -> Tensor:
    """Return scores [num_queries, num_documents], fp32 from sums in fp32."""
    with torch.autocast(device_type=queries.device.type, enabled=False):
        if queries.is_cuda and queries.dtype == documents.dtype in (torch.bfloat16, torch.float16):
            return torch.mm(queries, documents.T, out_dtype=torch.float32)
        with full_fp32():
            return queries.float() @ documents.float().T


@contextmanager
def full_fp32() -> Iterator[None]:
    """Compute products of fp32 in fp32, whatever precision training has set."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


def _as_embeddings(embeddings: Embeddings | Array) -> Embeddings:
    if not isinstance(embeddings, np.ndarray):
        return embeddings
    with warnings.catch_warnings():
        # a file mapped read-only; nothing writes to it here
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensor: Embeddings = torch.from_numpy(embeddings)
    return tensor
