"""Attention over a packed batch: one function, registered with transformers' attention interface.

On CUDA in half precision the variable-length flash kernel reads the flat row as it is. Elsewhere
queries, keys and values (and nothing else) are laid on a right-padded grid for
`scaled_dot_product_attention`, and the result is gathered back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from quarry.errors import UserError

PACKED = "quarry_packed"
"""Name under which the function is registered."""


def use_packed_attention(backbone: PreTrainedModel) -> None:
    """Makes every attention layer of `backbone` read packed batches (and only those)."""
    AttentionInterface.register(PACKED, packed_attention)
    # no layer may build a mask over the flat row: text borders are in cu_seq_lens_q alone
    AttentionMaskInterface.register(PACKED, _no_mask)
    backbone.set_attn_implementation(PACKED)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    is_causal: bool,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each text of a packed batch.

    Args:
        query: [1, num_heads, num_tokens, head_dim]; `key` and `value` may have fewer heads.
        cu_seq_lens_q: [num_texts + 1] int32, as in `TokenBatch.cu_seqlens`.
        max_length_q: tokens in the longest text.
        is_causal: a token sees the tokens before it (and itself) only.
        sliding_window: transformers' meaning: causal, the last `sliding_window` tokens; both
            directions, that many tokens on each side.

    Returns:
        [1, num_tokens, num_heads, head_dim], and None where transformers expects weights.
    """
    if softcap is not None or s_aux is not None:
        raise UserError(
            f"{type(module).__name__} caps its attention scores or adds sinks to them, which "
            "packed attention does not do: its embeddings would be wrong. Use another architecture."
        )
    assert attention_mask is None, "text borders are in cu_seq_lens_q alone"
    assert query.shape[0] == 1, "packed attention takes one flat row"
    window = _window(sliding_window, is_causal=is_causal)
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    has_kernel = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and dropout == 0.0
    if has_kernel:
        out = _flash(
            q,
            k,
            v,
            cu_seqlens=cu_seq_lens_q,
            max_seqlen=max_length_q,
            scaling=scaling,
            window=window,
        )
    else:
        out = _grid(
            q,
            k,
            v,
            cu_seqlens=cu_seq_lens_q,
            max_seqlen=max_length_q,
            scaling=scaling,
            window=window,
            dropout=dropout,
        )
    return out.unsqueeze(0), None


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _window(sliding_window: int | None, *, is_causal: bool) -> tuple[int, int]:
    """Tokens that a token sees to its left and right; -1: all."""
    if sliding_window is None:
        return (-1, 0) if is_causal else (-1, -1)
    return (sliding_window - 1, 0) if is_causal else (sliding_window, sliding_window)


def _flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens: Tensor,
    max_seqlen: int,
    scaling: float | None,
    window: tuple[int, int],
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    groups = q.shape[1] // k.shape[1]
    if groups > 1:  # the kernel of torch 2.11 has no grouped-query argument
        k, v = (states.repeat_interleave(groups, dim=1) for states in (k, v))
    return varlen_attn(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        scale=scaling,
        window_size=window,
    )


def _grid(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens: Tensor,
    max_seqlen: int,
    scaling: float | None,
    window: tuple[int, int],
    dropout: float,
) -> Tensor:
    lengths = cu_seqlens.diff()
    num_texts = lengths.numel()
    columns = torch.arange(max_seqlen, device=q.device)
    is_token = columns < lengths[:, None]  # [num_texts, max_seqlen]
    # place of each token on the flattened grid; its shape does not hang on data (torch.compile)
    tokens = torch.arange(q.shape[0], device=q.device)
    text = torch.bucketize(tokens, cu_seqlens[1:], right=True)
    slots = text * max_seqlen + tokens - cu_seqlens[text]

    def on_grid(states: Tensor) -> Tensor:
        grid = states.new_zeros(num_texts * max_seqlen, *states.shape[1:])
        return (
            grid.index_copy(0, slots, states).unflatten(0, (num_texts, max_seqlen)).transpose(1, 2)
        )

    left, right = window
    is_plain_causal = left == -1 and right == 0
    mask = None
    if not is_plain_causal:  # causal and right-padded needs no mask: padding comes after each token
        distance = columns[:, None] - columns[None, :]
        allowed = torch.ones_like(distance, dtype=torch.bool)
        if left >= 0:
            allowed &= distance <= left
        if right >= 0:
            allowed &= -distance <= right
        # a padding row that may see nothing would be NaN; it is never read, so let it see itself
        own = distance == 0
        mask = ((allowed & is_token[:, None, :]) | own)[:, None]
    out = scaled_dot_product_attention(
        on_grid(q),
        on_grid(k),
        on_grid(v),
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_plain_causal,
        scale=scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out.transpose(1, 2).flatten(0, 1).index_select(0, slots)
