"""Compute attention over a packed batch on a right-padded grid, for devices without the kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend_on_grid(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    scaling: float | None,
    window: tuple[int, int],
    dropout: float,
) -> Tensor:
    """Return the attention output of each query: [num_queries, num_heads, head_dim].

    If a text has more keys than queries, its queries are the last of its tokens, as in the kernel.

    Args:
        q: [num_queries, num_heads, head_dim].
        k, v: [num_keys, num_key_value_heads, head_dim].
        cu_seqlens_q, cu_seqlens_k: [num_texts + 1] int32, offsets of the texts; the same tensor
            if every token has a query and a key.
        max_seqlen_q, max_seqlen_k: number of queries and keys of the longest text.
        window: numbers of tokens that a token sees to its left and right; -1: all.
    """
    slots = _slots(cu_seqlens_q, q.shape[0], max_seqlen_q)
    is_same = cu_seqlens_k is cu_seqlens_q
    key_slots = slots if is_same else _slots(cu_seqlens_k, k.shape[0], max_seqlen_k)
    num_texts = cu_seqlens_q.numel() - 1
    # causal and right-padded needs no mask: padding comes after each token
    is_plain_causal = is_same and window == (-1, 0)
    mask = None
    if not is_plain_causal:
        mask = _mask(
            cu_seqlens_q.diff(),
            cu_seqlens_k.diff(),
            max_seqlen_q=max_seqlen_q,
            max_seqlen_k=max_seqlen_k,
            window=window,
        )
    out = scaled_dot_product_attention(
        _on_grid(q, slots, num_texts, max_seqlen_q),
        _on_grid(k, key_slots, num_texts, max_seqlen_k),
        _on_grid(v, key_slots, num_texts, max_seqlen_k),
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_plain_causal,
        scale=scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out.transpose(1, 2).flatten(0, 1).index_select(0, slots)


def _slots(cu_seqlens: Tensor, num_tokens: int, max_seqlen: int) -> Tensor:
    """Return the index of each token on the flattened grid.

    No shape depends on data, so torch.compile can trace it.
    """
    tokens = torch.arange(num_tokens, device=cu_seqlens.device)
    text = torch.bucketize(tokens, cu_seqlens[1:], right=True)
    return text * max_seqlen + tokens - cu_seqlens[text]


def _on_grid(states: Tensor, slots: Tensor, num_texts: int, max_seqlen: int) -> Tensor:
    grid = states.new_zeros(num_texts * max_seqlen, *states.shape[1:])
    filled: Tensor = grid.index_copy(0, slots, states).unflatten(0, (num_texts, max_seqlen))
    return filled.transpose(1, 2)


def _mask(
    num_queries: Tensor,
    num_keys: Tensor,
    *,
    max_seqlen_q: int,
    max_seqlen_k: int,
    window: tuple[int, int],
) -> Tensor:
    """Return which keys a query may see: bool [num_texts, 1, max_seqlen_q, max_seqlen_k]."""
    left, right = window
    device = num_queries.device
    columns = torch.arange(max_seqlen_k, device=device)
    rows = torch.arange(max_seqlen_q, device=device)
    places = rows + (num_keys - num_queries)[:, None]  # of the queries among the keys
    distance = places[:, :, None] - columns
    allowed = (columns < num_keys[:, None])[:, None, :].expand_as(distance)
    if left >= 0:
        allowed = allowed & (distance <= left)
    if right >= 0:
        allowed = allowed & (-distance <= right)
    # softmax over no key gives NaN: let padding queries see all keys, their output is never read
    return (allowed | (rows >= num_queries[:, None])[:, :, None])[:, None]
