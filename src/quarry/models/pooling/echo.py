"""Echo pooling (arXiv 2402.15449): the text stands twice, and its second copy has read it all."""

from __future__ import annotations

from torch import Tensor

from quarry.models.pooling.base import reduce_texts
from quarry.types import TokenBatch


class Echo:
    """The mean of the token states from the last copy of each text on, end token included.

    It belongs to a prompt that repeats the text (prompt=echo); with any other the last copy is the
    whole text, which a task refuses before it loads the model.
    """

    sentence_transformers_mode = "mean"
    pools_last_copy = True

    def __call__(self, token_states: Tensor, tokens: TokenBatch) -> Tensor:
        return reduce_texts(token_states, tokens, "mean", include_prompt=False)
