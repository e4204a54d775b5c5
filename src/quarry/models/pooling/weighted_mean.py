"""Position-weighted mean pooling (SGPT, arXiv 2202.08904), for causal models."""

from __future__ import annotations

from torch import Tensor

from quarry.models.pooling.base import num_pooled, reduce_texts
from quarry.types import TokenBatch


class WeightedMean:
    """The mean of each text's token states, the i-th of n weighted i / (1 + ... + n).

    In a causal model later tokens have read more of the text, so they count for more.

    Args:
        include_prompt: False: the tokens of the prompt are left out; the others keep their weights
            to each other.
    """

    sentence_transformers_mode = "weightedmean"

    def __init__(self, *, include_prompt: bool = True) -> None:
        self.include_prompt = include_prompt

    def __call__(self, token_states: Tensor, tokens: TokenBatch) -> Tensor:
        weights = (tokens.position_ids + 1).to(token_states.dtype)[:, None]
        sums = reduce_texts(
            token_states * weights, tokens, "sum", include_prompt=self.include_prompt
        )
        lengths = num_pooled(tokens, include_prompt=True).to(token_states.dtype)
        left_out = lengths - num_pooled(tokens, include_prompt=self.include_prompt)
        totals = (lengths * (lengths + 1) - left_out * (left_out + 1)) / 2
        return sums / totals[:, None]
