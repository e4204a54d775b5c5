"""Cache the keys and values of a prefix that all texts share, so that it is encoded once.

Under causal attention its keys and values do not depend on the text after it. Each layer holds
them during the forward pass of a batch without the prefix, whose tokens attend to both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig

from quarry.models.pooling.base import Pooling
from quarry.models.pooling.last_token import LastToken
from quarry.types import TokenBatch


@dataclass(frozen=True, kw_only=True)
class SharedPrefix:
    """Token ids of a prefix of every text, with its cached keys and values.

    Attributes:
        ids: [num_tokens] int64.
        states: attention layer -> its keys and values, [num_tokens, num_heads, head_dim].
    """

    ids: NDArray[np.int64]
    states: Mapping[nn.Module, tuple[Tensor, Tensor]]

    def __len__(self) -> int:
        return len(self.ids)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Attach the prefix's keys and values to every attention layer inside the context."""
        for layer, (keys, values) in self.states.items():
            layer.prefix_keys, layer.prefix_values = keys, values
        try:
            yield
        finally:
            for layer in self.states:
                del layer.prefix_keys, layer.prefix_values


def can_share_prefix(config: PretrainedConfig, *, pooling: Pooling, is_causal: bool) -> bool:
    """Return whether texts stay exact if what they begin with goes through the model once.

    Only causal attention without a window gives a prefix the same states in front of any text, and
    only last-token pooling never reads them.

    Args:
        config: of the part of the backbone that text goes through.
    """
    layer_types = getattr(config, "layer_types", None)
    if layer_types:
        has_window = any(layer_type != "full_attention" for layer_type in layer_types)
    else:  # Mistral states a window for all layers
        has_window = getattr(config, "sliding_window", None) is not None
    return type(pooling) is LastToken and is_causal and not has_window


def key_rows(tokens: TokenBatch, *, num_shared: int) -> tuple[Tensor, Tensor]:
    """Return the indices of each text's keys, and the offset at which each text's keys begin.

    Args:
        tokens: a batch without the prefix.
        num_shared: number of tokens of the prefix.

    Returns:
        [num_keys] int64, indices into the keys of the prefix followed by those of `tokens`; and
        [num_texts + 1] int32, as `TokenBatch.cu_seqlens`. Does not synchronize with the device.
    """
    borders = tokens.cu_seqlens
    begins = borders + num_shared * torch.arange(
        borders.numel(), dtype=borders.dtype, device=borders.device
    )
    num_keys = tokens.num_tokens + num_shared * len(tokens)
    rows = torch.arange(num_keys, device=borders.device)
    text = torch.bucketize(rows, begins[1:], right=True)
    place = rows - begins[text]  # in the text, the prefix included
    return torch.where(place < num_shared, place, place + borders[text]), begins
