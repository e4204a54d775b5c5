"""From chosen training examples to one packed contrast set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from quarry.data.packing import pack
from quarry.data.tokenization import TextTokenizer
from quarry.distributed.balance import balanced_shares
from quarry.types import Document, Query, RetrievalBatch, Role, TextHashes, TrainExample

CHARACTERS_PER_TOKEN = 4
"""Of English text, about; code has some fewer. It tells how long a text may be before it is cut."""


class RetrievalCollator:
    """Tokenises examples (one positive each, all with as many hard negatives) and packs them.

    In a run of several processes each gets the whole contrast set and keeps its own share of the
    queries, with their passages. The shares are balanced by what the texts look like before they
    are tokenised, so that a process tokenises no more than its own: characters, as far as the
    prompt's lengths let them through. They depend on the examples and the number of processes.

    Args:
        tokenizer: dresses and tokenises queries and passages.
        rank, num_shares: of the processes; each query goes to one of them.
    """

    def __init__(self, tokenizer: TextTokenizer, *, rank: int = 0, num_shares: int = 1) -> None:
        self.tokenizer = tokenizer
        self.rank = rank
        self.num_shares = num_shares

    def __call__(self, examples: Sequence[TrainExample]) -> RetrievalBatch:
        examples = self._own(examples)
        group_size = 1 + len(examples[0].hard_negatives)
        passages = [p for e in examples for p in (e.positives[0], *e.hard_negatives)]
        assert len(passages) == group_size * len(examples), "every example has one group size"
        queries = self.tokenizer([example.query for example in examples], "query")
        return RetrievalBatch(
            tokens=pack([*queries, *self.tokenizer(passages, "document")]),
            num_queries=len(examples),
            positive_index=torch.arange(len(examples)) * group_size,
            hashes=self._hashes([example.query for example in examples], passages),
        )

    def _own(self, examples: Sequence[TrainExample]) -> Sequence[TrainExample]:
        if self.num_shares == 1:
            return examples
        costs = [self._cost(example) for example in examples]
        shares = balanced_shares(costs, num_shares=self.num_shares)
        return [examples[index] for index in shares[self.rank]]

    def _cost(self, example: TrainExample) -> int:
        """Characters that are likely to be read, plus one for each text."""
        passages = (example.positives[0], *example.hard_negatives)
        return self._length(example.query, "query") + sum(
            self._length(passage, "document") for passage in passages
        )

    def _length(self, item: Query | Document, role: Role) -> int:
        most = CHARACTERS_PER_TOKEN * self.tokenizer.prompt.max_length(role)
        return min(len(self.tokenizer.frames[role].text_of(item)), most) + 1

    def _hashes(self, queries: Sequence[Query], passages: Sequence[Document]) -> TextHashes:
        """Of queries, and of passages that are grouped by query, the positive first."""
        frames = self.tokenizer.frames
        of_queries = torch.tensor([text_hash(frames["query"].text_of(query)) for query in queries])
        of_passages = [text_hash(frames["document"].text_of(passage)) for passage in passages]
        answered = torch.zeros(len(queries), len(passages) // len(queries), dtype=torch.int64)
        answered[:, 0] = of_queries
        return TextHashes(
            queries=of_queries, passages=torch.tensor(of_passages), answered=answered.flatten()
        )


def text_hash(text: str) -> int:
    """Return 64 bits of a text as it is encoded (`Frame.text_of`), the same in every process."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
