"""Attention over a packed batch: one function, registered with transformers' attention interface.

On CUDA in half precision the variable-length flash kernel reads the flat row as it is. Elsewhere
queries, keys and values (and nothing else) are laid on a right-padded grid for
`scaled_dot_product_attention`, and the result is gathered back (see attention_grid.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from quarry.errors import UserError
from quarry.models.attention_grid import attend_on_grid

PACKED = "quarry_packed"
PACKED_ON_GRID = "quarry_packed_on_grid"
"""Names under which the function is registered, with and without the kernel."""

MIN_CAPABILITY = (8, 0)
"""CUDA's compute capability from which on there is the variable-length kernel: Ampere."""


class _Grouped(TypedDict, total=False):
    enable_gqa: bool


_ASKS = "enable_gqa" in inspect.signature(varlen_attn).parameters
_GROUPED: _Grouped = {"enable_gqa": True} if _ASKS else {}
"""Fewer heads of keys than of queries: torch 2.11 takes them, later versions want to be told."""

_LAYER_TYPES = {"full_attention", "sliding_attention"}
"""Kinds of layers, as a config names them, that mix tokens by plain attention alone."""

_CHANGES_SCORES = ("softcap", "s_aux", "position_bias", "indices", "block_indices")
"""What a layer hands its attention function to cap, add to or leave out scores."""


def use_packed_attention(backbone: PreTrainedModel, *, allows_kernel: bool = True) -> None:
    """Makes every attention layer of `backbone` read packed batches (and only those).

    Args:
        allows_kernel: False: the grid everywhere, also where the kernel would run.

    Raises:
        UserError: see `check_packable`.
    """
    check_packable(backbone)
    AttentionInterface.register(PACKED, packed_attention)
    AttentionInterface.register(PACKED_ON_GRID, partial(packed_attention, allows_kernel=False))
    for name in (PACKED, PACKED_ON_GRID):
        # no layer may build a mask over the flat row: text borders are in cu_seq_lens_q alone
        AttentionMaskInterface.register(name, _no_mask)
    backbone.set_attn_implementation(PACKED if allows_kernel else PACKED_ON_GRID)


def check_packable(backbone: PreTrainedModel) -> None:
    """Makes sure that the texts of a packed batch cannot reach each other in this architecture.

    Raises:
        UserError: it has a decoder beside its encoder; its layers mix tokens by other means than
            attention (a recurrence, a convolution) or attend by other patterns than all tokens or
            a sliding window; its attention cannot be exchanged.
    """
    config = backbone.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ())
    others = sorted(layer_types - _LAYER_TYPES)
    # the class of a hybrid says that it may have a recurrence, layer types whether it does
    is_recurrent = not layer_types and getattr(backbone, "_is_stateful", False)
    has_trigrams = getattr(config, "trigram_input", False)  # MobileBERT embeds neighbours, too
    if config.is_encoder_decoder:
        reason = "it is an encoder with a decoder beside it"
    elif others or is_recurrent or has_trigrams:
        kinds = f" ({', '.join(others)})" if others else ""
        reason = f"its layers mix tokens by other means than plain attention{kinds}"
    elif not backbone.is_backend_compatible():
        reason = "its attention does not go through transformers' attention interface"
    else:
        return
    trunk = next(m for m in backbone.modules() if isinstance(m, PreTrainedModel))  # under peft, too
    raise UserError(_refusal(type(trunk).__name__, reason))


def is_causal_by_design(backbone: PreTrainedModel) -> bool:
    """Whether a token sees only itself and what comes before it, if nobody asks for anything else.

    A decoder marks its attention layers as causal and an encoder does not; a config that states
    `is_causal`, as a saved bi-encoder's does, overrules them.
    """
    stated = getattr(backbone.config, "is_causal", None)
    if stated is not None:
        return bool(stated)
    return any(getattr(layer, "is_causal", False) for layer in backbone.modules())


def first_position(backbone: PreTrainedModel) -> int:
    """The position of a text's first token: 0, but in RoBERTa's family the one after padding's."""
    for module in backbone.modules():
        if hasattr(module, "create_position_ids_from_inputs_embeds"):
            return int(module.padding_idx) + 1
    return 0


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int = 0,
    max_length_k: int = 0,
    key_rows: Tensor | None = None,
    prefix_states: dict[torch.nn.Module, tuple[Tensor, Tensor]] | None = None,
    is_causal: bool = True,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    allows_kernel: bool = True,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention within each text of a packed batch.

    Args:
        query: [1, num_heads, num_tokens, head_dim]; `key` and `value` may have fewer heads.
        cu_seq_lens_q, cu_seq_lens_k: [num_texts + 1] int32, where the queries and the keys of each
            text begin, as in `TokenBatch.cu_seqlens`; one tensor where every token is both. Queries
            are the last tokens of their text.
        max_length_q, max_length_k: queries and keys of the longest text.
        key_rows: [num_keys] int64, the rows of the keys among those of a prefix, which the layer
            holds (see shared_prefix.py), followed by those of the batch; None: those of the batch.
        prefix_states: gets the layer's keys and values, [num_tokens, num_heads, head_dim], if
            later tokens may see them all.
        is_causal: a token sees the tokens before it (and itself) only.
        sliding_window: as transformers' flash attention takes it: a token sees itself and
            `sliding_window - 1` tokens before it, and as many after it where it is not causal.
        allows_kernel: whether the variable-length kernel may be used where it runs.
        more: what else the layer says; refused where it would change the scores.

    Returns:
        [1, num_tokens, num_heads, head_dim], and None where transformers expects weights.

    Raises:
        UserError: the layer needs a kind of attention that this is not.
    """
    _check_call(module, attention_mask=attention_mask, cu_seqlens=cu_seq_lens_q, more=more)
    assert cu_seq_lens_q is not None
    assert query.shape[0] == 1, "packed attention takes one flat row"
    q, k, v = (_in_autocast(states[0].transpose(0, 1)) for states in (query, key, value))
    if prefix_states is not None and sliding_window is None:
        prefix_states[module] = (k, v)
    if key_rows is not None:
        prefix_keys, prefix_values = module.prefix_keys, module.prefix_values
        assert isinstance(prefix_keys, Tensor)
        assert isinstance(prefix_values, Tensor)
        k = torch.cat([prefix_keys, k]).index_select(0, key_rows)
        v = torch.cat([prefix_values, v]).index_select(0, key_rows)
    has_kernel = allows_kernel and dropout == 0.0 and _has_kernel(q)
    attend = _flash if has_kernel else partial(attend_on_grid, dropout=dropout)
    out = attend(
        q,
        k,
        v,
        cu_seqlens_q=cu_seq_lens_q,
        cu_seqlens_k=cu_seq_lens_q if cu_seq_lens_k is None else cu_seq_lens_k,
        max_seqlen_q=max_length_q,
        max_seqlen_k=max_length_k or max_length_q,
        scaling=scaling,
        window=_window(sliding_window, is_causal=is_causal),
    )
    return out.unsqueeze(0), None


def _in_autocast(states: Tensor) -> Tensor:
    """Rotary embeddings lift queries and keys to fp32; autocast has no rule for the kernel."""
    device = states.device.type
    if torch.is_autocast_enabled(device) and states.dtype != torch.float64:
        return states.to(torch.get_autocast_dtype(device))
    return states


def _has_kernel(states: Tensor) -> bool:
    if not states.is_cuda or states.dtype not in (torch.float16, torch.bfloat16):
        return False
    return bool(torch.cuda.get_device_capability(states.device) >= MIN_CAPABILITY)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def _check_call(
    module: torch.nn.Module,
    *,
    attention_mask: Tensor | None,
    cu_seqlens: Tensor | None,
    more: Mapping[str, Any],
) -> None:
    """Refuses, by UserError, what no check of the architecture could see before its first call."""
    changes = [name for name in _CHANGES_SCORES if more.get(name) is not None]
    if changes:
        reason = f"it caps, adds to or leaves out attention scores ({', '.join(changes)})"
    elif attention_mask is not None:
        reason = "it builds an attention mask of its own"
    elif cu_seqlens is None:
        reason = "it does not tell its attention layers where texts begin"
    else:
        return
    raise UserError(_refusal(type(module).__name__, reason))


def _refusal(architecture: str, reason: str) -> str:
    return (
        f"{architecture} cannot take packed batches: {reason}, so its embeddings would be wrong. "
        "Choose a model whose layers are plain attention, such as Qwen2, Llama or ModernBERT."
    )


def _window(sliding_window: int | None, *, is_causal: bool) -> tuple[int, int]:
    """Tokens that a token sees to its left and right; -1: all."""
    if sliding_window is None:
        return (-1, 0) if is_causal else (-1, -1)
    return (sliding_window - 1, 0 if is_causal else sliding_window - 1)


def _flash(
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
) -> Tensor:
    out = varlen_attn(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        scale=scaling,
        window_size=window,
        **_GROUPED,
    )
    assert isinstance(out, Tensor)  # a pair only where more is asked for
    return out
