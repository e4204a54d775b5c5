"""Echo pooling (arXiv 2402.15449): the text stands twice, and its second copy has read it all."""

from __future__ import annotations

import torch
from torch import Tensor

from quarry.types import TokenBatch


class Echo:
    """The mean of the token states from the last copy of each text on, end token included.

    It belongs to a prompt that repeats the text (prompt=echo); with any other the last copy is the
    whole text, which a task refuses before it loads the model.
    """

    sentence_transformers_mode = "mean"
    pools_last_copy = True

    def __call__(self, token_states: Tensor, tokens: TokenBatch) -> Tensor:
        begins, ends = tokens.pool_starts.long(), tokens.cu_seqlens[1:].long()
        # a segment for the first copy, which is dropped, and one for the second
        borders = torch.stack([begins, ends], dim=1).flatten()
        offsets = torch.cat([borders.new_zeros(1), borders])
        means = torch.segment_reduce(token_states, "mean", offsets=offsets, axis=0, unsafe=True)
        return means[1::2]
