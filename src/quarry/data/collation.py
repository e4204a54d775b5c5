"""Collate chosen training examples into one packed contrastive batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from quarry.data.packing import pack
from quarry.data.tokenization import TextTokenizer
from quarry.distributed.balance import balanced_shares
from quarry.runtime.text_hash import text_hash
from quarry.types import Document, Query, RetrievalBatch, Role, TextHashes, TrainExample

CHARACTERS_PER_TOKEN = 4
"""Rough characters per token of English text (code: fewer); bounds a text before it is cut."""


class RetrievalCollator:
    """Collator that tokenizes and packs examples: one positive each, any number of hard negatives.

    Every rank receives the full contrastive batch and keeps its own share of the queries, with
    their passages. Shares are balanced before tokenization, so that a rank tokenizes only its
    own: by characters, as far as the prompt's lengths admit them. Shares depend on the examples
    and the world size alone.

    Args:
        tokenizer: renders prompts and tokenizes queries and passages.
        rank, num_shares: this rank and the world size; each query goes to one rank.
    """

    def __init__(self, tokenizer: TextTokenizer, *, rank: int = 0, num_shares: int = 1) -> None:
        self.tokenizer = tokenizer
        self.rank = rank
        self.num_shares = num_shares

    def __call__(self, examples: Sequence[TrainExample]) -> RetrievalBatch:
        # over the examples of all ranks, so that all of them have scores or none has
        is_scored = any(_has_scores(example) for example in examples)
        is_weighted = any(example.weight is not None for example in examples)
        examples = self._own(examples)
        queries = [example.query for example in examples]
        passages = [p for e in examples for p in (e.positives[0], *e.hard_negatives)]
        group_sizes = torch.tensor([1 + len(example.hard_negatives) for example in examples])
        positive_index = group_sizes.cumsum(0) - group_sizes
        tokens = [*self.tokenizer(queries, "query"), *self.tokenizer(passages, "document")]
        return RetrievalBatch(
            tokens=pack(tokens),
            num_queries=len(examples),
            positive_index=positive_index,
            hashes=self._hashes(queries, passages, positive_index),
            scores=_scores(examples) if is_scored else None,
            weights=_weights(examples) if is_weighted else None,
        )

    def _own(self, examples: Sequence[TrainExample]) -> Sequence[TrainExample]:
        if self.num_shares == 1:
            return examples
        costs = [self._cost(example) for example in examples]
        shares = balanced_shares(costs, num_shares=self.num_shares)
        return [examples[index] for index in shares[self.rank]]

    def _cost(self, example: TrainExample) -> int:
        """Return the characters that are likely to be tokenized, plus one for each text."""
        passages = (example.positives[0], *example.hard_negatives)
        return self._length(example.query, "query") + sum(
            self._length(passage, "document") for passage in passages
        )

    def _length(self, item: Query | Document, role: Role) -> int:
        most = CHARACTERS_PER_TOKEN * self.tokenizer.prompt.max_length(role)
        return min(len(self.tokenizer.frames[role].text_of(item)), most) + 1

    def _hashes(
        self, queries: Sequence[Query], passages: Sequence[Document], positive_index: Tensor
    ) -> TextHashes:
        frames = self.tokenizer.frames
        of_queries = torch.tensor([text_hash(frames["query"].text_of(query)) for query in queries])
        of_passages = [text_hash(frames["document"].text_of(passage)) for passage in passages]
        answered = torch.zeros(len(passages), dtype=torch.int64)
        answered[positive_index] = of_queries
        return TextHashes(queries=of_queries, passages=torch.tensor(of_passages), answered=answered)


def _has_scores(example: TrainExample) -> bool:
    scores = (*(example.positive_scores or ()), *(example.hard_negative_scores or ()))
    return not all(map(math.isnan, scores))


def _scores(examples: Sequence[TrainExample]) -> Tensor:
    """Return [num_passages] float32 in the order of the passages; see `RetrievalBatch.scores`."""
    scores: list[float] = []
    for example in examples:
        missing = (math.nan,) * len(example.hard_negatives)
        scores += example.positive_scores or (math.nan,)
        scores += missing if example.hard_negative_scores is None else example.hard_negative_scores
    return torch.tensor(scores, dtype=torch.float32)


def _weights(examples: Sequence[TrainExample]) -> Tensor:
    """Return [num_queries] float32; an example without a weight counts once."""
    weights = [1.0 if example.weight is None else example.weight for example in examples]
    return torch.tensor(weights, dtype=torch.float32)
