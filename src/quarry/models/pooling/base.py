"""What a pooling is: token states of a packed batch in, one vector a text out."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from quarry.types import TokenBatch


class Pooling(Protocol):
    """Reduces token states [num_tokens, dim] to [num_texts, dim], in the dtype of the states.

    The caller hands over fp32 (or wider) states and normalises the result.

    A class may say how sentence-transformers does the same, for `task=export`:
    `sentence_transformers_mode`, a mode of its Pooling, and `pools_last_copy = True` where only the
    last copy of a text (from `TokenBatch.pool_starts` on) is pooled.
    """

    def __call__(self, token_states: Tensor, tokens: TokenBatch) -> Tensor: ...
