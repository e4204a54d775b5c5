"""Max pooling: the largest value of each dimension over a text's tokens."""

from __future__ import annotations

from torch import Tensor

from quarry.models.pooling.base import reduce_texts
from quarry.types import TokenBatch


class Max:
    """The largest value of each dimension over each text's token states, end token included.

    Args:
        include_prompt: False: the tokens of the prompt are left out.
    """

    sentence_transformers_mode = "max"

    def __init__(self, *, include_prompt: bool = True) -> None:
        self.include_prompt = include_prompt

    def __call__(self, token_states: Tensor, tokens: TokenBatch) -> Tensor:
        return reduce_texts(token_states, tokens, "max", include_prompt=self.include_prompt)
