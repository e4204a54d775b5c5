"""Find the best k of scores that come in chunks, in one order for any chunks, shards or devices.

A score and its document form one integer, which no two documents share. So there are no ties that
a library's top k could break arbitrarily. Building these integers for every score would cost more
than the scores did; block maxima rule out most scores before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from quarry.distributed import world
from quarry.errors import UserError
from quarry.retrieval.tie_breaking import NO_RANKING

LAST_PLACE = 2**32 - 1
NO_KEY = torch.iinfo(torch.int64).min
NUM_QUERIES_PER_EXCHANGE = 8_192
NUM_KEYS_AT_A_TIME = 2**23
"""Keys that are built at a time for queries with many ties: 64 MiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopK:
    """The best documents of each query, best first, equal scores by place.

    Attributes:
        scores: [num_queries, k] fp32, without negative zeros.
        places: [num_queries, k] int64, places in `tie_breaking.tie_order` of the full corpus.
    """

    scores: Tensor
    places: Tensor


def merge_top_k(parts: Sequence[TopK], *, top_k: int) -> TopK:
    """Merge the best documents of a corpus's parts into the best `top_k` of the corpus.

    Equal to a search of the full corpus: each part has its own best `top_k`, or all its documents.
    Places refer to the full corpus; no document is in two parts.
    """
    keys = torch.cat([_to_keys(part.scores, part.places) for part in parts], dim=1)
    return _to_top_k(_best(keys, min(top_k, keys.shape[1])))


def exchange_top_k(best: TopK, *, top_k: int, device: torch.device | str) -> TopK:
    """Return the best `top_k` of a corpus that several ranks search, on all of them.

    Args:
        best: this rank's result for its share: its best `top_k`, or all its documents.
        top_k: at most the number of documents in all shares.
        device: device of the exchange.
    """
    if world.size() == 1:
        return best
    own = pad(_to_keys(best.scores, best.places), (0, top_k - best.scores.shape[1]), value=NO_KEY)
    merged = [
        _best(world.stacked(keys.to(device)).transpose(0, 1).flatten(1), top_k).cpu()
        for keys in own.split(NUM_QUERIES_PER_EXCHANGE)
    ]
    return _to_top_k(torch.cat(merged))


class RunningTopK:
    """Running top k for a group of queries, which receives scores a chunk of documents at a time.

    Beside the chunk's scores it holds k keys of 8 bytes a query. While it processes a chunk it
    holds about a tenth of the scores' size; with many ties up to about as much again.

    Args:
        num_queries: queries in the group.
        top_k: number of documents per query.
        device: device of the scores.
    """

    def __init__(self, *, num_queries: int, top_k: int, device: torch.device) -> None:
        self.num_queries = num_queries
        self._top_k = top_k
        nothing = torch.full((num_queries, top_k), -torch.inf, device=device)
        self._keys = _to_keys(nothing, torch.full_like(nothing, LAST_PLACE, dtype=torch.long))
        self._has_nan = torch.zeros((), dtype=torch.bool, device=device)

    def add(self, scores: Tensor, places: Tensor) -> None:
        """Process one more chunk.

        Args:
            scores: [num_queries, num_columns] fp32. Columns behind the last document are
                overwritten.
            places: [num_documents] int64, at most num_columns.
        """
        num_filled = scores.shape[1] - len(places)
        if num_filled:
            scores[:, len(places) :] = -torch.inf
            places = pad(places, (0, num_filled), value=LAST_PLACE)
        size = _block_size(scores.shape[1], self._top_k)
        # block j holds the columns j, j + num_blocks, ...: maxima over rows of memory are fastest
        blocks = scores.view(len(scores), size, -1)
        maxima = blocks.amax(dim=1)
        self._has_nan |= maxima.isnan().any()
        floor = self._floor(maxima)
        is_open = maxima >= floor
        is_crowded = is_open.sum(dim=1) > self._top_k
        self._add_open_blocks(blocks, is_open & ~is_crowded[:, None], floor, places)
        if is_crowded.any():
            self._add_full_rows(scores, is_crowded, places)

    def result(self, *, num_documents: int) -> TopK:
        """Return the best of all chunks: [num_queries, min(top_k, num_documents)].

        Raises:
            UserError: a score was NaN.
        """
        if self._has_nan:
            raise UserError(NO_RANKING)
        return _to_top_k(self._keys[:, :num_documents])

    def _floor(self, maxima: Tensor) -> Tensor:
        """Return a lower bound of the best k of each query, [num_queries, 1].

        It is the worst of the current k or, if necessary, the maximum of the k-th best block: each
        of k blocks has a score at least as good.
        """
        floor = _scores_of(self._keys[:, -1:])
        if ((maxima >= floor).sum(dim=1) > self._top_k).any():
            floor = torch.maximum(floor, maxima.topk(self._top_k, dim=1).values[:, -1:])
        return floor

    def _add_open_blocks(
        self, blocks: Tensor, is_open: Tensor, floor: Tensor, places: Tensor
    ) -> None:
        """Process the blocks whose maximum reaches the floor, k a query at most."""
        row_of_block, block = is_open.nonzero(as_tuple=True)
        values = blocks[row_of_block, :, block]
        found, offset = (values >= floor[row_of_block]).nonzero(as_tuple=True)
        row = row_of_block[found]
        column = offset * blocks.shape[2] + block[found]
        keys = _to_keys(values[found, offset], places[column])
        # the rows ascend, so each key's place in its row is its distance from the row's first
        rows = torch.arange(len(blocks) + 1, device=row.device)
        first = torch.searchsorted(row, rows)
        width = int(first.diff().max())
        grouped = keys.new_full((len(blocks), width), NO_KEY)
        grouped[row, torch.arange(len(row), device=row.device) - first[row]] = keys
        self._keys = _best(torch.cat([self._keys, grouped], dim=1), self._top_k)

    def _add_full_rows(self, scores: Tensor, is_crowded: Tensor, places: Tensor) -> None:
        """Process all columns of queries with more than k blocks at the floor: ties, few rows."""
        num_rows = max(NUM_KEYS_AT_A_TIME // scores.shape[1], 1)
        for rows in is_crowded.nonzero().flatten().split(num_rows):
            keys = torch.cat([self._keys[rows], _to_keys(scores[rows], places)], dim=1)
            self._keys[rows] = _best(keys, self._top_k)


def _block_size(num_columns: int, top_k: int) -> int:
    """Return the number of scores in a block, near sqrt(num_columns / top_k).

    This makes the number of blocks about equal to the number of scores in the k blocks that are
    processed, which minimizes the work after the maxima.
    """
    size = 1
    while 4 * size * size * top_k <= 2 * num_columns and num_columns % (2 * size) == 0:
        size *= 2
    return size


def _best(keys: Tensor, k: int) -> Tensor:
    return keys.topk(k, dim=1).values


def _to_keys(scores: Tensor, places: Tensor) -> Tensor:
    """Return integers ordered by (score descending, place ascending), the best one highest.

    The high half is the score: the bits of fp32 numbers are ordered as the numbers, once those of
    negative numbers are flipped. The low half is the place, counted from the end.
    """
    return (_turned((scores + 0.0).view(torch.int32)).long() << 32) | (LAST_PLACE - places)


def _scores_of(keys: Tensor) -> Tensor:
    return _turned((keys >> 32).int()).view(torch.float32)


def _to_top_k(keys: Tensor) -> TopK:
    return TopK(scores=_scores_of(keys), places=LAST_PLACE - (keys & LAST_PLACE))


def _turned(bits: Tensor) -> Tensor:
    """Flip all bits but the sign of negative numbers; this is its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
