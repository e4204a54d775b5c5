"""Pack token ids into batches without padding, and plan batches by their number of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from quarry.data.tokenization import TokenizedText
from quarry.errors import UserError
from quarry.types import TokenBatch


def pack(texts: Sequence[TokenizedText | ArrayLike], *, num_shared: int = 0) -> TokenBatch:
    """Concatenate texts, tokenized or as bare ids, into one batch. Each has at least one token.

    Args:
        num_shared: tokens at the beginning of each text that are left out and that no pooling
            reads; positions count from there.
    """
    tokenized = [text if isinstance(text, TokenizedText) else _from_ids(text) for text in texts]
    rows = [text.ids[num_shared:] for text in tokenized]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    assert lengths.size, "nothing to pack"
    assert lengths.min() > 0, "a text without tokens cannot be packed"
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    starts = np.array([text.pool_start for text in tokenized])
    pool_starts = cu_seqlens[:-1] + np.maximum(starts - num_shared, 0)
    positions = np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1] - num_shared, lengths)
    return TokenBatch(
        input_ids=torch.from_numpy(np.concatenate(rows)),
        position_ids=torch.from_numpy(positions),
        cu_seqlens=torch.from_numpy(cu_seqlens.astype(np.int32)),
        max_seqlen=int(lengths.max()),
        pool_starts=torch.from_numpy(pool_starts.astype(np.int32)),
    )


def _from_ids(ids: ArrayLike) -> TokenizedText:
    return TokenizedText(ids=np.asarray(ids, dtype=np.int64))


def plan_batches(lengths: ArrayLike, *, max_tokens_per_batch: int) -> list[NDArray[np.int64]]:
    """Group texts into batches of similar length with at most `max_tokens_per_batch` tokens.

    The plan depends on the lengths and the budget alone: longest first (memory peaks in the first
    batch, not after an hour), equal lengths in the given order. A text longer than the budget forms
    a batch by itself.

    Returns:
        For each batch the indices of its texts in `lengths`; every index occurs once.
    """
    if max_tokens_per_batch < 1:
        raise UserError(
            f"max_tokens_per_batch={max_tokens_per_batch} must be at least 1: it is the number of "
            "tokens that one forward pass may hold."
        )
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    batches: list[NDArray[np.int64]] = []
    start, tokens = 0, 0
    for position, length in enumerate(lengths[order]):
        if position > start and tokens + length > max_tokens_per_batch:
            batches.append(order[start:position])
            start, tokens = position, 0
        tokens += int(length)
    if start < len(order):
        batches.append(order[start:])
    return batches


def split(tokens: TokenBatch, batches: Sequence[NDArray[np.int64]]) -> list[TokenBatch]:
    """Split a packed batch: for each entry of `batches`, return its texts in the given order.

    The lengths are read on the CPU once, which waits for the device.
    """
    borders = tokens.cu_seqlens.cpu().numpy().astype(np.int64)
    return [_select(tokens, rows, borders) for rows in batches]


def _select(tokens: TokenBatch, rows: NDArray[np.int64], borders: NDArray[np.int64]) -> TokenBatch:
    lengths = (borders[1:] - borders[:-1])[rows]
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    index = np.arange(cu_seqlens[-1]) + np.repeat(borders[rows] - cu_seqlens[:-1], lengths)
    device = tokens.input_ids.device
    places = torch.from_numpy(index).to(device)
    moved_by = torch.from_numpy((cu_seqlens[:-1] - borders[rows]).astype(np.int32)).to(device)
    return TokenBatch(
        input_ids=tokens.input_ids[places],
        position_ids=tokens.position_ids[places],
        cu_seqlens=torch.from_numpy(cu_seqlens.astype(np.int32)).to(device),
        max_seqlen=int(lengths.max()),
        pool_starts=tokens.pool_starts[torch.from_numpy(rows).to(device)] + moved_by,
    )
