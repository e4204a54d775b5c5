"""Plan the batches in which texts are encoded, and assign them to ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quarry.data.packing import plan_batches
from quarry.data.tokenization import TokenizedText
from quarry.distributed import world
from quarry.retrieval.window_tokens import WindowTokens

NUM_TEXTS_IN_FIRST_WINDOW = 1_024


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedBatch:
    """Texts of one forward pass.

    Attributes:
        start: number of texts in the batches before it; identifies the batch.
        rows: [num_texts] positions of the texts among the items; none: see `Dealer`.
        texts: the tokenized texts.
    """

    start: int
    rows: NDArray[np.int64]
    texts: Sequence[TokenizedText]

    @property
    def is_idle(self) -> bool:
        """Whether the batch is a one-token forward pass whose result is not used."""
        return len(self.rows) == 0


IDLE = PlannedBatch(
    start=-1,
    rows=np.empty(0, dtype=np.int64),
    texts=[TokenizedText(ids=np.zeros(1, dtype=np.int64))],
)


def plan_windows(num_texts: int, *, largest: int) -> Iterator[range]:
    """Cut texts in order into windows that double in size up to the largest.

    The first is small, since the model waits for its tokens. Depends on the arguments alone.
    """
    start, size = 0, min(NUM_TEXTS_IN_FIRST_WINDOW, largest)
    while start < num_texts:
        yield range(start, min(start + size, num_texts))
        start, size = start + size, min(2 * size, largest)


class Dealer:
    """Assigns the batches of a plan to ranks, and hands out those of this rank.

    Every rank asks about all batches in the order of the plan, and gets the same assignment without
    communication. A batch goes to the rank with the fewest tokens so far, so that all finish at
    about the same time.

    Args:
        has_equal_steps: every rank must run equally many forward passes, as all ranks gather
            sharded weights together. Then ranks take turns, and a batch is handed out once all
            ranks' batches of the same step are known: no rank waits for tokens while another one
            waits for it in a forward pass. A rank without a batch in the last step gets an idle
            one.
    """

    def __init__(self, *, has_equal_steps: bool) -> None:
        self._has_equal_steps = has_equal_steps
        self._num_tokens = [0] * world.size()
        self._num_batches = 0
        self._num_handed_out = 0
        self._own: list[PlannedBatch] = []

    def is_own(self, num_tokens: int) -> bool:
        """Return whether the next batch of the plan, with so many tokens, belongs to this rank."""
        num_ranks = len(self._num_tokens)
        if self._has_equal_steps:
            receiver = self._num_batches % num_ranks
        else:
            receiver = min(range(num_ranks), key=self._num_tokens.__getitem__)
        self._num_tokens[receiver] += num_tokens
        self._num_batches += 1
        return receiver == world.rank()

    def hand_out(self, own: Iterable[PlannedBatch]) -> list[PlannedBatch]:
        """Return the batches of this rank that can be encoded now, including delayed ones.

        Args:
            own: new batches for which `is_own` was true.
        """
        self._own += own
        if self._has_equal_steps:
            num_steps = self._num_batches // len(self._num_tokens)
            number = num_steps - self._num_handed_out
        else:
            number = len(self._own)
        ready, self._own = self._own[:number], self._own[number:]
        self._num_handed_out += len(ready)
        return ready

    def rest(self) -> list[PlannedBatch]:
        """Return the delayed batches at the end of the plan, and an idle batch if one is due."""
        num_steps = -(-self._num_batches // len(self._num_tokens))
        is_short = self._num_handed_out + len(self._own) < num_steps
        return [*self._own, IDLE] if self._has_equal_steps and is_short else self._own


def own_batches(
    window: range,
    tokens: WindowTokens,
    *,
    dealer: Dealer,
    max_tokens_per_batch: int,
    is_done: Callable[[range], bool],
) -> list[PlannedBatch]:
    """Return this rank's unfinished batches of a window, and delayed ones, that can be encoded now.

    Args:
        window: positions of its texts.
        is_done: whether a batch, given as the range of its texts in the plan, is done.
    """
    own: list[PlannedBatch] = []
    start, lengths = window.start, np.asarray(tokens.lengths)
    for rows in plan_batches(lengths, max_tokens_per_batch=max_tokens_per_batch):
        place = range(start, start + len(rows))
        start = place.stop
        if is_done(place) or not dealer.is_own(int(lengths[rows].sum())):
            continue
        texts = [tokens.texts[row] for row in rows]
        own.append(PlannedBatch(start=place.start, rows=window.start + rows, texts=texts))
    return dealer.hand_out(own)
