"""What a pooling is: token states of a packed batch in, one vector a text out."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from quarry.types import TokenBatch


class Pooling(Protocol):
    """Reduces token states [num_tokens, dim] to [num_texts, dim], in the dtype of the states.

    The caller hands over fp32 (or wider) states and normalises the result.

    A class may say how sentence-transformers does the same, for `task=export` and to be found for
    a folder of that library: `sentence_transformers_mode`, a mode of its Pooling, and
    `pools_last_copy = True` where only the last copy of a text (from `TokenBatch.pool_starts` on)
    is pooled. One that takes `include_prompt` leaves out, where that is False, what stands before
    `TokenBatch.pool_starts`, as the option of the same name does there.
    """

    def __call__(self, token_states: Tensor, tokens: TokenBatch) -> Tensor: ...


def reduce_texts(
    token_states: Tensor, tokens: TokenBatch, reduce: str, *, include_prompt: bool
) -> Tensor:
    """Reduce the token states [num_tokens, dim] of each text to one vector: [num_texts, dim].

    Args:
        reduce: sum, mean or max.
        include_prompt: False: from `tokens.pool_starts` on.
    """
    # one reduction a text in a fixed order: unlike index_add_ it repeats bit for bit on CUDA
    offsets = tokens.cu_seqlens.long()
    if not include_prompt:  # a segment for each prompt, which is dropped, and one for the text
        borders = torch.stack([tokens.pool_starts.long(), offsets[1:]], dim=1).flatten()
        offsets = torch.cat([borders.new_zeros(1), borders])
    reduced = torch.segment_reduce(token_states, reduce, offsets=offsets, axis=0, unsafe=True)
    return reduced if include_prompt else reduced[1::2]


def num_pooled(tokens: TokenBatch, *, include_prompt: bool) -> Tensor:
    """Return how many tokens of each text are pooled, [num_texts] int64."""
    begins = tokens.cu_seqlens[:-1] if include_prompt else tokens.pool_starts
    return tokens.cu_seqlens[1:].long() - begins.long()
