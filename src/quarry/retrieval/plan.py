"""The batches that texts are encoded in, and which process of a run encodes which of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quarry.data.tokenization import TokenizedText
from quarry.distributed import world

NUM_TEXTS_IN_FIRST_WINDOW = 1_024


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedBatch:
    """Texts that go through the model together.

    Attributes:
        start: how many texts are in the batches before it; names the batch.
        rows: [num_texts] positions of the texts among the items; none: see `own_batches`.
        texts: the same, tokenised.
    """

    start: int
    rows: NDArray[np.int64]
    texts: Sequence[TokenizedText]

    @property
    def is_idle(self) -> bool:
        """Whether nobody asks for it: a forward pass to take part in, with one token."""
        return len(self.rows) == 0


IDLE = PlannedBatch(
    start=-1,
    rows=np.empty(0, dtype=np.int64),
    texts=[TokenizedText(ids=np.zeros(1, dtype=np.int64))],
)


def plan_windows(num_texts: int, *, largest: int) -> Iterator[range]:
    """Cuts texts in order into windows that double in size up to the largest.

    The first is small, since the model waits for its tokens. Depends on the numbers alone.
    """
    start, size = 0, min(NUM_TEXTS_IN_FIRST_WINDOW, largest)
    while start < num_texts:
        yield range(start, min(start + size, num_texts))
        start, size = start + size, min(2 * size, largest)


def own_batches(
    plan: Iterable[PlannedBatch], *, has_equal_steps: bool = False
) -> Iterator[PlannedBatch]:
    """This process's share of a plan, which every process reads whole and in order.

    Each batch goes to the process that has the fewest tokens so far: all are done at about the same
    time, and each knows what the others do without asking them.

    Args:
        has_equal_steps: whether every process has to run as many forward passes as the others, as
            where weights in shards are fetched by all together; those with fewer batches get idle
            ones at the end.
    """
    num_processes, rank = world.size(), world.rank()
    num_tokens, num_batches = [0] * num_processes, [0] * num_processes
    for batch in plan:
        receiver = min(range(num_processes), key=num_tokens.__getitem__)
        num_tokens[receiver] += sum(map(len, batch.texts))
        num_batches[receiver] += 1
        if receiver == rank:
            yield batch
    if has_equal_steps:
        for _ in range(max(num_batches) - num_batches[rank]):
            yield IDLE
