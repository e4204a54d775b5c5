"""Run the last layer for pooled tokens alone: it computes keys and values of all tokens only.

With last-token pooling the last layer's other outputs are never read. Their queries, attention,
output projection and feed-forward layer are 3.5 % of the matrix products of a 7B.
"""

from __future__ import annotations

import sys
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from quarry.models.attention import PACKED, packed_attention

_PLAIN = {
    "transformers.models.gemma.modeling_gemma": "GemmaDecoderLayer",
    "transformers.models.llama.modeling_llama": "LlamaDecoderLayer",
    "transformers.models.mistral.modeling_mistral": "MistralDecoderLayer",
    "transformers.models.qwen2.modeling_qwen2": "Qwen2DecoderLayer",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl": "Qwen2_5_VLDecoderLayer",
    "transformers.models.qwen2_vl.modeling_qwen2_vl": "Qwen2VLDecoderLayer",
    "transformers.models.qwen3.modeling_qwen3": "Qwen3DecoderLayer",
}
"""Layers that compute what `_forward` does: norm, attention, add; norm, feed-forward, add."""


def pool_in_last_layer(backbone: PreTrainedModel) -> bool:
    """Make the last layer of `backbone` accept `pooled_rows`; return whether that is possible.

    It is possible for the plain layers of `_PLAIN` with full attention. Without `pooled_rows` the
    layer computes what it did.
    """
    layers = getattr(backbone, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return False
    layer: Any = layers[-1]
    if type(layer).__name__ != _PLAIN.get(type(layer).__module__) or "forward" in vars(layer):
        return False
    attention = layer.self_attn
    # Mistral's layers have no attribute of their own
    of_config = getattr(attention.config, "sliding_window", None)
    if getattr(attention, "sliding_window", of_config) is not None:
        return False
    # transformers before 5.17 has another function for Qwen2.5-VL
    rotary = getattr(sys.modules[type(layer).__module__], "apply_rotary_pos_emb", None)
    if rotary is None:
        return False
    layer.apply_rotary = rotary
    layer.forward = MethodType(_forward, layer)
    return True


def _forward(
    self: Any,
    hidden_states: Tensor,
    *args: Any,
    pooled_rows: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """Return the layer's output of all tokens, [1, num_tokens, dim], or of `pooled_rows` alone.

    Args:
        pooled_rows: [num_texts] int64, index of the pooled token of each text.
    """
    if pooled_rows is None:
        output: Tensor = type(self).forward(self, hidden_states, *args, **kwargs)
        return output
    attended = _attended(self, self.input_layernorm(hidden_states), pooled_rows, **kwargs)
    pooled = hidden_states.index_select(1, pooled_rows) + attended
    fed_forward: Tensor = self.mlp(self.post_attention_layernorm(pooled))
    return pooled + fed_forward


def _attended(
    layer: Any,
    states: Tensor,
    pooled_rows: Tensor,
    *,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """Return the attention output of the pooled tokens, [1, num_texts, dim].

    Each is the last token of its text: it sees all keys, whether attention is causal or not.
    """
    attention = layer.self_attn
    chosen = states.index_select(1, pooled_rows)
    query = _in_heads(attention, "q", chosen)
    key = _in_heads(attention, "k", states)
    value = _in_heads(attention, "v", states)
    cos, sin = position_embeddings
    _, key = layer.apply_rotary(key[:, :0], key, cos, sin)
    cos, sin = cos.index_select(-2, pooled_rows), sin.index_select(-2, pooled_rows)
    query, _ = layer.apply_rotary(query, query[:, :0], cos, sin)
    num_texts = pooled_rows.numel()
    borders = torch.arange(num_texts + 1, dtype=torch.int32, device=states.device)
    attended, _ = packed_attention(
        attention,
        query,
        key,
        value,
        attention_mask,
        dropout=attention.attention_dropout if attention.training else 0.0,
        scaling=attention.scaling,
        allows_kernel=attention.config._attn_implementation == PACKED,
        **(kwargs | {"cu_seq_lens_q": borders, "max_length_q": 1, "is_causal": False}),
    )
    output: Tensor = attention.o_proj(attended.reshape(1, num_texts, -1))
    return output


def _in_heads(attention: Any, name: str, states: Tensor) -> Tensor:
    """Project [1, num_tokens, dim] to [1, num_heads, num_tokens, head_dim]."""
    projected: Tensor = getattr(attention, f"{name}_proj")(states)
    heads: Tensor = projected.unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{name}_norm", None)
    if norm is not None:
        heads = norm(heads)
    return heads.transpose(1, 2)
