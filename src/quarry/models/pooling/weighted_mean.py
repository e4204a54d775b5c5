"""Position-weighted mean pooling (SGPT, arXiv 2202.08904), for causal models."""

from __future__ import annotations

import torch
from torch import Tensor

from quarry.types import TokenBatch


class WeightedMean:
    """The mean of each text's token states, the i-th of n weighted i / (1 + ... + n).

    In a causal model later tokens have read more of the text, so they count for more.
    """

    sentence_transformers_mode = "weightedmean"

    def __call__(self, token_states: Tensor, tokens: TokenBatch) -> Tensor:
        weights = (tokens.position_ids + 1).to(token_states.dtype)
        lengths = tokens.cu_seqlens.diff().to(token_states.dtype)
        totals = lengths * (lengths + 1) / 2
        sums = torch.segment_reduce(
            token_states * weights[:, None],
            "sum",
            offsets=tokens.cu_seqlens.long(),
            axis=0,
            unsafe=True,
        )
        return sums / totals[:, None]
