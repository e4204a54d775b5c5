"""Last-token pooling, usual for causal models: only that token has read the whole text."""

from __future__ import annotations

from torch import Tensor

from quarry.types import TokenBatch


class LastToken:
    """The state of each text's last token (its end token, where one is appended)."""

    sentence_transformers_mode = "lasttoken"

    def __call__(self, token_states: Tensor, tokens: TokenBatch) -> Tensor:
        return token_states[tokens.cu_seqlens[1:].long() - 1]
