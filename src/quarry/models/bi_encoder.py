"""Encode packed tokens to one embedding a text, for queries and documents alike."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from quarry.models.adapters.lora_dropout import drawn_seeds
from quarry.models.adapters.lora_factors import cast_factors, fast_layers
from quarry.models.attention import first_position, is_causal_by_design, use_packed_attention
from quarry.models.backbones.text_model import base_model, text_model
from quarry.models.last_layer import pool_in_last_layer
from quarry.models.pooling.base import Pooling
from quarry.models.pooling.last_token import LastToken
from quarry.models.projections import Projection
from quarry.models.shared_prefix import SharedPrefix, can_share_prefix, key_rows
from quarry.types import TokenBatch


class BiEncoder(nn.Module):
    """A transformer backbone, a pooling and (by default) normalization to length 1.

    Everything after the backbone is fp32 (fp64 stays fp64), whatever the backbone computes in: a
    cosine near 0.8 in bf16 moves in steps of 0.004, enough to tie rankings.

    Args:
        backbone: without a language-model head (what `AutoModel` loads), with its adapters and
            LoRA's fast path where it has them. Of a vision-language model, text goes through the
            language model alone.
        pooling: token states -> one vector a text, see `models/pooling`.
        is_causal: False lets every token attend to the complete text; None: as the backbone was
            built.
        normalize: divide embeddings by their length, so that an inner product is a cosine.
        embedding_dim: keep the first entries of an embedding, before it is normalized (Matryoshka,
            Kusupati et al. 2022, arXiv 2205.13147); None: all.
        projections: `Projection` modules between pooling and normalization, if there are any.
        allows_kernel: see `attention.use_packed_attention`.
    """

    def __init__(
        self,
        *,
        backbone: PreTrainedModel,
        pooling: Pooling,
        is_causal: bool | None = True,
        normalize: bool = True,
        embedding_dim: int | None = None,
        projections: nn.Sequential | None = None,
        allows_kernel: bool = True,
    ) -> None:
        super().__init__()
        text = text_model(backbone)
        use_packed_attention(text, allows_kernel=allows_kernel)
        if is_causal is None:
            is_causal = is_causal_by_design(text)
        text.config.is_causal = is_causal  # stored in a saved folder's config.json
        self.backbone = backbone
        self.first_position = first_position(text)
        self.pooling = pooling
        self.is_causal = is_causal
        self._pools_last_token = type(pooling) is LastToken
        self.pools_in_last_layer = self._pools_last_token and pool_in_last_layer(text)
        self.is_normalized = normalize
        self.kept_dim = embedding_dim
        self.projections = nn.Sequential() if projections is None else projections
        self._lora_layers = fast_layers(backbone)

    @property
    def embedding_dim(self) -> int:
        """Return the width of the embeddings."""
        return self.kept_dim or self.full_dim

    @property
    def full_dim(self) -> int:
        """Return the width before entries are left out: the last projection's or hidden size."""
        if self.projections:
            last = self.projections[-1]
            assert isinstance(last, Projection)
            return int(last.linear.out_features)
        return int(text_model(self.backbone).config.hidden_size)

    @property
    def commit(self) -> str | None:
        """Return the hub's commit that the backbone was read from; None for a folder."""
        commit: str | None = getattr(base_model(self.backbone).config, "_commit_hash", None)
        return commit

    def token_states(self, tokens: TokenBatch, **more: Any) -> Tensor:
        """Return the backbone's last hidden states, [num_tokens, dim], in its own dtype.

        With `pooled_rows` among `more`: of those rows alone, [num_texts, dim].

        Args:
            more: arguments of its layers, see `attention.packed_attention` and `last_layer`.
        """
        text = text_model(self.backbone)
        dtype = _dtype_of_products(text)
        given = {
            "cu_seq_lens_q": tokens.cu_seqlens,
            "cu_seq_lens_k": tokens.cu_seqlens,
            "max_length_q": tokens.max_seqlen,
            "max_length_k": tokens.max_seqlen,
        }
        with cast_factors(self._lora_layers, dtype), drawn_seeds(self._lora_layers):
            output = text(
                input_ids=tokens.input_ids[None],
                position_ids=tokens.position_ids[None] + self.first_position,
                attention_mask=None,
                use_cache=False,
                is_causal=self.is_causal,
                **(given | more),
            )
        states: Tensor = output.last_hidden_state[0]
        return states

    def encode_prefix(self, tokens: TokenBatch) -> SharedPrefix | None:
        """Encode a prefix that many texts share; return its ids and each layer's keys and values.

        Return None where sharing would not be exact, see `can_share_prefix`.
        """
        config = text_model(self.backbone).config
        if not can_share_prefix(config, pooling=self.pooling, is_causal=self.is_causal):
            return None
        on_device = tokens.to(next(self.parameters()).device)
        states: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        with torch.compiler.set_stance("force_eager"):  # a few tokens, once
            self.token_states(on_device, prefix_states=states)
        if len(states) < config.num_hidden_layers:  # a layer has its own sliding window
            return None
        return SharedPrefix(ids=tokens.input_ids.numpy(), states=states)

    def forward(self, tokens: TokenBatch, prefix: SharedPrefix | None = None) -> Tensor:
        """Return the embeddings [num_texts, dim], fp32 or wider, in the order of the batch.

        Args:
            prefix: a shared prefix of each text, not part of `tokens`, whose positions continue it.
        """
        more: dict[str, Any] = {}
        if self.pools_in_last_layer:
            more["pooled_rows"] = tokens.cu_seqlens[1:].long() - 1
        if prefix is not None:
            rows, begins = key_rows(tokens, num_shared=len(prefix))
            more |= {"key_rows": rows, "cu_seq_lens_k": begins}
            more["max_length_k"] = tokens.max_seqlen + len(prefix)
        with nullcontext() if prefix is None else prefix.held():
            states = self.token_states(tokens, **more)
        with torch.autocast(device_type=states.device.type, enabled=False):
            states = states if states.dtype == torch.float64 else states.float()
            pooled = states if self.pools_in_last_layer else self.pooling(states, tokens)
            projected: Tensor = self.projections(pooled)
            if self.kept_dim is not None:
                projected = projected[:, : self.kept_dim]
            return normalize(projected, dim=-1) if self.is_normalized else projected


def _dtype_of_products(backbone: PreTrainedModel) -> torch.dtype:
    """Return the dtype of matrix products: autocast's where it is on, else the weights'."""
    weight: Tensor = backbone.get_input_embeddings().weight
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight.dtype
