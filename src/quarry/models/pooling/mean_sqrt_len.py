"""Mean pooling by the square root of a text's length (sentence-transformers)."""

from __future__ import annotations

from torch import Tensor

from quarry.models.pooling.base import num_pooled, reduce_texts
from quarry.types import TokenBatch


class MeanSqrtLen:
    """The sum of each text's token states, divided by the square root of their number.

    Normalised to length 1 it is the mean; it differs where embeddings keep their length, or where
    projections follow.

    Args:
        include_prompt: False: the tokens of the prompt are left out.
    """

    sentence_transformers_mode = "mean_sqrt_len_tokens"

    def __init__(self, *, include_prompt: bool = True) -> None:
        self.include_prompt = include_prompt

    def __call__(self, token_states: Tensor, tokens: TokenBatch) -> Tensor:
        sums = reduce_texts(token_states, tokens, "sum", include_prompt=self.include_prompt)
        lengths = num_pooled(tokens, include_prompt=self.include_prompt)
        return sums / lengths.to(sums.dtype).sqrt()[:, None]
