"""From chosen training examples to one packed contrast set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from quarry.data.packing import pack
from quarry.data.prompts import joined_text
from quarry.data.tokenization import TextTokenizer
from quarry.types import Document, Query, RetrievalBatch, TextHashes, TrainExample


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
            hashes=_hashes([example.query for example in examples], passages),
        )


def text_hash(item: Query | Document) -> int:
    """64 bits of the text that is encoded, before the prompt; the same in every process."""
    digest = hashlib.blake2b(joined_text(item).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _hashes(queries: Sequence[Query], passages: Sequence[Document]) -> TextHashes:
    """Of queries, and of passages that are grouped by query, the positive first."""
    of_queries = torch.tensor([text_hash(query) for query in queries])
    answered = torch.zeros(len(queries), len(passages) // len(queries), dtype=torch.int64)
    answered[:, 0] = of_queries
    return TextHashes(
        queries=of_queries,
        passages=torch.tensor([text_hash(passage) for passage in passages]),
        answered=answered.flatten(),
    )
