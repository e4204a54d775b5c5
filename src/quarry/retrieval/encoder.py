"""Encodes queries and documents with a bi-encoder, in batches counted in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from quarry.data.packing import pack, plan_batches
from quarry.data.tokenization import TextTokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.types import Document, Query, Role


class Encoder:
    """Texts in, embeddings out, in the order of the texts.

    Texts are tokenised and sorted by length a window at a time, so a corpus larger than memory is
    read once, in order. What is in a batch depends on the texts and the budget alone.

    Args:
        model: used in eval mode without gradients, left in the mode it was in.
        tokenizer: prompt and lengths.
        max_tokens_per_batch: tokens in one forward pass.
        num_texts_per_window: texts that are tokenised and sorted together.
    """

    def __init__(
        self,
        *,
        model: BiEncoder,
        tokenizer: TextTokenizer,
        max_tokens_per_batch: int,
        num_texts_per_window: int = 16_384,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens_per_batch = max_tokens_per_batch
        self.num_texts_per_window = num_texts_per_window

    def encode(self, items: Sequence[Query | Document], role: Role, *, label: str = "") -> Tensor:
        """Embeddings [num_texts, dim], fp32, on the CPU.

        Args:
            role: which prompt and length the texts get.
            label: names the progress bar (shown on a terminal only).
        """
        embeddings = torch.empty(len(items), self.model.embedding_dim)
        was_training = self.model.training
        self.model.eval()
        try:
            with (
                torch.inference_mode(),
                tqdm(
                    total=len(items), desc=label or role, unit="text", disable=None, leave=False
                ) as bar,
            ):
                for start in range(0, len(items), self.num_texts_per_window):
                    window = items[start : start + self.num_texts_per_window]
                    out = embeddings[start : start + len(window)]
                    self._encode_window(window, role, out, bar)
        finally:
            self.model.train(was_training)
        return embeddings

    def _encode_window(
        self, items: Sequence[Query | Document], role: Role, out: Tensor, bar: tqdm[Any]
    ) -> None:
        device = next(self.model.parameters()).device
        token_ids = self.tokenizer(items, role)
        lengths = [len(ids) for ids in token_ids]
        for rows in plan_batches(lengths, max_tokens_per_batch=self.max_tokens_per_batch):
            tokens = pack([token_ids[row] for row in rows])
            out[torch.from_numpy(rows)] = self.model(tokens.to(device)).float().cpu()
            bar.update(len(rows))
