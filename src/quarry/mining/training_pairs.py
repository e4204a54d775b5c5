"""Read the pairs and the texts of a training set in order, without holding them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from quarry.data.pair_tokenization import Pair
from quarry.runtime.progress import tracked
from quarry.types import Document, TrainExample


class TrainingPairs(Sequence[Pair]):
    """Each query with each of its passages: positives, then hard negatives.

    Args:
        examples: the training set.

    Attributes:
        counts: [num_examples] passages of each example.
    """

    def __init__(self, examples: Sequence[TrainExample]) -> None:
        self.examples = examples
        read = tracked(examples, label="training set", units="examples")
        self.counts: NDArray[np.int64] = np.fromiter(
            (len(each.positives) + len(each.hard_negatives) for each in read),
            dtype=np.int64,
            count=len(examples),
        )
        self._ends = np.cumsum(self.counts)
        self._last: tuple[int, list[Pair]] = (-1, [])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        example = int(np.searchsorted(self._ends, number, side="right"))
        pairs = self._of(example)
        return pairs[number - int(self._ends[example])]  # counted from the end

    def _of(self, example: int) -> list[Pair]:
        """Return the pairs of an example; those of the last one are kept."""
        known, pairs = self._last
        if known != example:
            found = self.examples[example]
            passages = (*found.positives, *found.hard_negatives)
            pairs = [(found.query, passage) for passage in passages]
            self._last = example, pairs
        return pairs


class TrainingPassages(Sequence[Document]):
    """The passage of each pair.

    Args:
        pairs: of the training set.
    """

    def __init__(self, pairs: TrainingPairs) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [document for _, document in self._pairs[index]]
        return self._pairs[index][1]
