"""CLS pooling, usual for encoders: the first token has read the full text."""

from __future__ import annotations

from torch import Tensor

from quarry.types import TokenBatch


class Cls:
    """The state of each text's first token ([CLS], where the tokenizer puts one there).

    Args:
        include_prompt: False: of the first token behind the prompt, as in sentence-transformers.
    """

    sentence_transformers_mode = "cls"

    def __init__(self, *, include_prompt: bool = True) -> None:
        self.include_prompt = include_prompt

    def __call__(self, token_states: Tensor, tokens: TokenBatch) -> Tensor:
        firsts = tokens.cu_seqlens[:-1] if self.include_prompt else tokens.pool_starts
        return token_states[firsts.long()]
