"""The best k of scores that come in chunks: one order, the same for any chunks, shards or devices.

A score and its document become one whole number, which no two documents share, so there are no
ties left for a library's top k to break as it likes. Making these numbers for every score would
cost more than the scores did; most are ruled out before, by the maxima of blocks.
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
"""Keys made at a time for queries that have many ties: 64 MiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopK:
    """The best documents of each query, best first, equal scores by place.

    Attributes:
        scores: [num_queries, k] fp32, without negative zeros.
        places: [num_queries, k] int64, places in `ranking.tie_order` of the whole corpus.
    """

    scores: Tensor
    places: Tensor


def merge_top_k(parts: Sequence[TopK], *, top_k: int) -> TopK:
    """The best `top_k` of a corpus from those of its parts, in the one order that a search has.

    Equal to a search of the whole: each part holds its own best `top_k`, or all it has. Places
    count in the whole corpus; no document is in two parts.
    """
    keys = torch.cat([_to_keys(part.scores, part.places) for part in parts], dim=1)
    return _to_top_k(_best(keys, min(top_k, keys.shape[1])))


def exchange_top_k(best: TopK, *, top_k: int, device: torch.device | str) -> TopK:
    """The best `top_k` of a corpus that is searched by several processes, in all of them.

    Args:
        best: what this process has found in its share: its best `top_k`, or all it has.
        top_k: at most as many as there are documents in all shares.
        device: where the processes exchange.
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
    """Takes the scores of a group of queries a chunk of documents at a time; keeps the best k.

    Beside the chunk's scores it holds k keys of 8 bytes a query, and while it looks through a chunk
    about a tenth of the scores' size; with many ties up to about as much again.

    Args:
        num_queries: in the group.
        top_k: how many to keep.
        device: where the scores will be.
    """

    def __init__(self, *, num_queries: int, top_k: int, device: torch.device) -> None:
        self.num_queries = num_queries
        self._top_k = top_k
        nothing = torch.full((num_queries, top_k), -torch.inf, device=device)
        self._keys = _to_keys(nothing, torch.full_like(nothing, LAST_PLACE, dtype=torch.long))
        self._has_nan = torch.zeros((), dtype=torch.bool, device=device)

    def add(self, scores: Tensor, places: Tensor) -> None:
        """Looks at one more chunk.

        Args:
            scores: [num_queries, num_columns] fp32. Columns after the last document are filled.
            places: [num_documents] int64, at most num_columns.
        """
        num_filled = scores.shape[1] - len(places)
        if num_filled:
            scores[:, len(places) :] = -torch.inf
            places = pad(places, (0, num_filled), value=LAST_PLACE)
        size = _block_size(scores.shape[1], self._top_k)
        # block j holds the columns j, j + num_blocks, ...: maxima over rows of memory are quickest
        blocks = scores.view(len(scores), size, -1)
        maxima = blocks.amax(dim=1)
        self._has_nan |= maxima.isnan().any()
        floor = self._floor(maxima)
        is_open = maxima >= floor
        is_crowded = is_open.sum(dim=1) > self._top_k
        self._add_open_blocks(blocks, is_open & ~is_crowded[:, None], floor, places)
        if is_crowded.any():
            self._add_whole_rows(scores, is_crowded, places)

    def result(self, *, num_documents: int) -> TopK:
        """The best of all chunks: [num_queries, min(top_k, num_documents)].

        Raises:
            UserError: a score was NaN.
        """
        if self._has_nan:
            raise UserError(NO_RANKING)
        return _to_top_k(self._keys[:, :num_documents])

    def _floor(self, maxima: Tensor) -> Tensor:
        """[num_queries, 1]: no score below it can be among the best k.

        The worst of the k that are kept; and the k-th best block's maximum, if there is need: each
        of k blocks has a score as good as that.
        """
        floor = _scores_of(self._keys[:, -1:])
        if ((maxima >= floor).sum(dim=1) > self._top_k).any():
            floor = torch.maximum(floor, maxima.topk(self._top_k, dim=1).values[:, -1:])
        return floor

    def _add_open_blocks(
        self, blocks: Tensor, is_open: Tensor, floor: Tensor, places: Tensor
    ) -> None:
        """Looks at the blocks whose maximum reaches the floor, k a query at most."""
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

    def _add_whole_rows(self, scores: Tensor, is_crowded: Tensor, places: Tensor) -> None:
        """Looks at all columns of queries with more blocks at the floor than k: ties, few rows."""
        num_rows = max(NUM_KEYS_AT_A_TIME // scores.shape[1], 1)
        for rows in is_crowded.nonzero().flatten().split(num_rows):
            keys = torch.cat([self._keys[rows], _to_keys(scores[rows], places)], dim=1)
            self._keys[rows] = _best(keys, self._top_k)


def _block_size(num_columns: int, top_k: int) -> int:
    """Scores a block, near sqrt(num_columns / top_k).

    That makes the number of blocks about that of the scores in the k blocks to be looked at: what
    is left to do after the maxima is least.
    """
    size = 1
    while 4 * size * size * top_k <= 2 * num_columns and num_columns % (2 * size) == 0:
        size *= 2
    return size


def _best(keys: Tensor, k: int) -> Tensor:
    return keys.topk(k, dim=1).values


def _to_keys(scores: Tensor, places: Tensor) -> Tensor:
    """Numbers that are ordered as (score descending, place ascending) is, best highest.

    The high half is the score: the bits of an fp32 number are ordered as the numbers are, once
    those of negative numbers are turned round. The low half is the place, counted from the end.
    """
    return (_turned((scores + 0.0).view(torch.int32)).long() << 32) | (LAST_PLACE - places)


def _scores_of(keys: Tensor) -> Tensor:
    return _turned((keys >> 32).int()).view(torch.float32)


def _to_top_k(keys: Tensor) -> TopK:
    return TopK(scores=_scores_of(keys), places=LAST_PLACE - (keys & LAST_PLACE))


def _turned(bits: Tensor) -> Tensor:
    """Flips all bits but the sign of negative numbers; twice is nothing."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
