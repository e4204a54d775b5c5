"""From chosen training examples to one packed contrast set."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from quarry.data.packing import pack
from quarry.data.tokenization import TextTokenizer
from quarry.types import RetrievalBatch, TrainExample


class RetrievalCollator:
    """Tokenises examples (one positive each, all with as many hard negatives) and packs them."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, examples: Sequence[TrainExample]) -> RetrievalBatch:
        group_size = 1 + len(examples[0].hard_negatives)
        passages = [p for e in examples for p in (e.positives[0], *e.hard_negatives)]
        assert len(passages) == group_size * len(examples), "every example has one group size"
        queries = self.tokenizer([example.query for example in examples], "query")
        return RetrievalBatch(
            tokens=pack([*queries, *self.tokenizer(passages, "document")]),
            num_queries=len(examples),
            positive_index=torch.arange(len(examples)) * group_size,
        )
