"""Mean pooling: the average over a text's tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from quarry.types import TokenBatch


class Mean:
    """The mean of each text's token states, end token included."""

    sentence_transformers_mode = "mean"

    def __call__(self, token_states: Tensor, tokens: TokenBatch) -> Tensor:
        # one reduction a text in a fixed order: unlike index_add_ it repeats bit for bit on CUDA
        return torch.segment_reduce(
            token_states, "mean", offsets=tokens.cu_seqlens.long(), axis=0, unsafe=True
        )
