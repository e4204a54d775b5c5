"""Rank candidates by the embeddings of a model, on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quarry.distributed import world
from quarry.mining.mining_texts import MiningTexts
from quarry.mining.negative_choice import Ranked
from quarry.retrieval.embeddings import TextEncoder
from quarry.retrieval.index.exact import ExactIndex
from quarry.retrieval.index.top_k import exchange_top_k

NUM_PAIRS_AT_A_TIME = 4_096
"""Pairs of a query and a positive whose embeddings are in memory at a time."""


class DenseCandidates:
    """Source of candidates by inner product, exact.

    All texts are encoded when it is made; ranks encode and search a share each, and all receive the
    same candidates. A positive's score is computed in fp64 from the embeddings and rounded to fp32.

    Args:
        texts: queries and passages.
        encoder: of the model; it decides where embeddings are.
        index: searches them.
        label: name of the texts in progress and logs.
    """

    name = "dense"
    is_teacher = False
    setting = "retriever=dense"
    lacks = "nothing was retrieved"
    remedy = "task.corpus=DIR_OR_FILE with other passages"

    def __init__(
        self, *, texts: MiningTexts, encoder: TextEncoder, index: ExactIndex, label: str = "mining"
    ) -> None:
        self._texts = texts
        self._index = index
        self._device = encoder.device
        self._queries = encoder.encode(texts.queries, "query", label=f"{label} queries")
        share = encoder.encode_share(texts.passages, "document", label=f"{label} passages")
        self._items = share.items
        self._embeddings = share.embeddings
        num_searched = int(np.searchsorted(share.items, texts.num_searched))
        self._searched = share.embeddings.choose(np.arange(num_searched))
        self._label = label

    def ranked(self, start: int, stop: int, *, depth: int) -> Iterator[Ranked]:
        """Yield the candidates of some examples; see `CandidateSource`. A collective operation."""
        depth = min(depth, self._texts.num_searched)
        best = self._index.top_k(
            queries=self._queries[start:stop],
            documents=self._searched,
            places=torch.from_numpy(self._items[: len(self._searched)]),
            top_k=depth,
            device=self._device,
            label=f"{self._label} search",
        )
        if world.size() > 1:
            best = exchange_top_k(best, top_k=depth, device=self._device)
        places, scores = best.places.numpy(), best.scores.double().numpy()
        of_positives = self.positive_scores(start, stop)
        ends = np.cumsum(self._texts.num_positives[start:stop])
        for row, own in enumerate(np.split(of_positives, ends[:-1])):
            yield Ranked(places=places[row], scores=scores[row], positive_scores=own)

    def positive_scores(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the scores of the positives; see `CandidateSource`. A collective operation."""
        counts = self._texts.num_positives[start:stop]
        places = np.concatenate([self._texts.positives_of(row) for row in range(start, stop)])
        rows = np.repeat(np.arange(len(counts)), counts)
        where = np.minimum(np.searchsorted(self._items, places), max(len(self._items) - 1, 0))
        is_here = self._items[where] == places if len(self._items) else np.zeros(len(rows), bool)
        queries = self._queries[start:stop].cpu()
        found = np.zeros(len(rows), dtype=np.float64)
        own = np.flatnonzero(is_here)
        for part in np.split(own, range(NUM_PAIRS_AT_A_TIME, len(own), NUM_PAIRS_AT_A_TIME)):
            passages = self._embeddings.choose(where[part])[:].double()
            products = queries[torch.from_numpy(rows[part])].double() * passages
            found[part] = products.sum(dim=1).float().double().numpy()
        total: NDArray[np.float64] = world.total(torch.from_numpy(found)).numpy()
        return total

    def facts(self) -> dict[str, Any]:
        """Return the width of the embeddings."""
        return {"embedding_dim": int(self._queries.shape[1])}
