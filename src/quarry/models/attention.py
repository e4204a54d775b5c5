"""Compute attention over packed batches, by a function of transformers' attention interface.

On CUDA in half precision the variable-length flash kernel reads the packed row directly. Elsewhere
queries, keys and values (and nothing else) are padded on the right for
`scaled_dot_product_attention`, and the result is unpadded (see attention_grid.py).
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
"""Names under which the function is registered, with and without the flash kernel."""

MIN_CAPABILITY = (8, 0)
"""Lowest CUDA compute capability with the variable-length kernel: Ampere."""


class _Grouped(TypedDict, total=False):
    enable_gqa: bool


_ASKS = "enable_gqa" in inspect.signature(varlen_attn).parameters
_GROUPED: _Grouped = {"enable_gqa": True} if _ASKS else {}
"""Grouped-query attention: torch 2.11 accepts it as it is, later versions need the argument."""

_LAYER_TYPES = {"full_attention", "sliding_attention"}
"""Layer types of a config that mix tokens by plain attention alone."""

_CHANGES_SCORES = ("softcap", "s_aux", "position_bias", "indices", "block_indices")
"""Arguments by which a layer asks its attention function to cap, bias or mask scores."""


def use_packed_attention(backbone: PreTrainedModel, *, allows_kernel: bool = True) -> None:
    """Make every attention layer of `backbone` read packed batches (and only those).

    Args:
        allows_kernel: False: use the padded grid even where the flash kernel would run.

    Raises:
        UserError: see `check_packable`.
    """
    check_packable(backbone)
    AttentionInterface.register(PACKED, packed_attention)
    AttentionInterface.register(PACKED_ON_GRID, partial(packed_attention, allows_kernel=False))
    for name in (PACKED, PACKED_ON_GRID):
        # no layer may build a mask over the packed row: text borders are in cu_seq_lens_q alone
        AttentionMaskInterface.register(name, _no_mask)
    backbone.set_attn_implementation(PACKED if allows_kernel else PACKED_ON_GRID)


def check_packable(backbone: PreTrainedModel) -> None:
    """Refuse architectures in which the texts of a packed batch could influence each other.

    Raises:
        UserError: it is an encoder-decoder; its layers mix tokens by other means than attention
            (a recurrence, a convolution) or by other patterns than full attention and a sliding
            window; its attention function cannot be replaced.
    """
    config = backbone.config.get_text_config()
    layer_types = set(getattr(config, "layer_types", None) or ())
    others = sorted(layer_types - _LAYER_TYPES)
    # a hybrid's class says only that it may have a recurrence; its layer types say whether it does
    is_recurrent = not layer_types and getattr(backbone, "_is_stateful", False)
    has_trigrams = getattr(config, "trigram_input", False)  # MobileBERT embeds adjacent tokens
    if config.is_encoder_decoder:
        reason = "it is an encoder with a decoder beside it"
    elif others or is_recurrent or has_trigrams:
        kinds = f" ({', '.join(others)})" if others else ""
        reason = f"its layers mix tokens by other means than plain attention{kinds}"
    elif not backbone.is_backend_compatible():
        reason = "its attention does not go through transformers' attention interface"
    else:
        return
    # the model itself, also inside peft's wrapper
    model = next(m for m in backbone.modules() if isinstance(m, PreTrainedModel))
    raise UserError(_refusal(type(model).__name__, reason))


def is_causal_by_design(backbone: PreTrainedModel) -> bool:
    """Return whether attention is causal by default.

    Decoders mark their attention layers as causal, encoders do not. A config that states
    `is_causal`, as a saved bi-encoder's does, overrides that.
    """
    stated = getattr(backbone.config, "is_causal", None)
    if stated is not None:
        return bool(stated)
    return any(getattr(layer, "is_causal", False) for layer in backbone.modules())


def first_position(backbone: PreTrainedModel) -> int:
    """Return the position id of a text's first token: 0, or padding_idx + 1 in RoBERTa's family."""
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
    """Compute attention within each text of a packed batch.

    Args:
        query: [1, num_heads, num_tokens, head_dim]; `key` and `value` may have fewer heads.
        cu_seq_lens_q, cu_seq_lens_k: [num_texts + 1] int32, offsets of the queries and the keys of
            each text, as in `TokenBatch.cu_seqlens`; the same tensor where every token is both.
            Queries are the last tokens of their text.
        max_length_q, max_length_k: number of queries and keys of the longest text.
        key_rows: [num_keys] int64, indices of the keys into those of a shared prefix, which the
            layer holds (see shared_prefix.py), followed by those of the batch; None: the batch's.
        prefix_states: receives the layer's keys and values, [num_tokens, num_heads, head_dim],
            unless a sliding window hides some of them from later tokens.
        is_causal: a token sees only itself and the tokens before it.
        sliding_window: as in transformers' flash attention: a token sees itself and
            `sliding_window - 1` tokens before it, and as many after it if attention is not causal.
        allows_kernel: whether the variable-length kernel may be used where it runs.
        more: other arguments of the layer; refused if they would change the scores.

    Returns:
        [1, num_tokens, num_heads, head_dim], and None in place of attention weights.

    Raises:
        UserError: the layer needs a kind of attention that is not supported.
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
    """Cast to autocast's dtype: rotary embeddings return fp32, and autocast skips the kernel."""
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
    """Raise UserError for attention arguments that only the first forward pass reveals."""
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
        "Fix: choose a model whose layers are plain attention, such as Qwen2, Llama or ModernBERT."
    )


def _window(sliding_window: int | None, *, is_causal: bool) -> tuple[int, int]:
    """Return the numbers of tokens that a token sees to its left and right; -1: all."""
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
    assert isinstance(out, Tensor)  # a tuple only if the log-sum-exp is requested, too
    return out
