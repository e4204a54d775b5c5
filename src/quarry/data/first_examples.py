"""Train on the first examples of a training set: `data.max_examples`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from quarry.data.train_dataset import CountedSource, read_hard_negative_counts
from quarry.types import TrainExample


class FirstExamples(Sequence[TrainExample]):
    """The first examples of a training set, with its caveats, counts and places in files.

    Args:
        examples: the training set.
        number: of examples, at most as many as there are.
    """

    def __init__(self, examples: Sequence[TrainExample], number: int) -> None:
        assert 0 < number <= len(examples)
        self._examples = examples
        self._number = number

    @property
    def caveats(self) -> tuple[str, ...]:
        """Return what a reader must know of the complete training set."""
        return tuple(getattr(self._examples, "caveats", ()))

    def __len__(self) -> int:
        return self._number

    @overload
    def __getitem__(self, index: int) -> TrainExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainExample]: ...
    def __getitem__(self, index: int | slice) -> TrainExample | list[TrainExample]:
        places = range(self._number)[index]
        if isinstance(places, range):
            return [self._examples[place] for place in places]
        return self._examples[places]

    def hard_negative_counts(self) -> NDArray[np.int32]:
        """Return the number of hard negatives of each example: [len(self)]."""
        if isinstance(self._examples, CountedSource):
            return self._examples.hard_negative_counts()[: self._number]
        return read_hard_negative_counts(self)

    def location(self, index: int) -> str:
        """Return the place of an example in its file, or its number."""
        if isinstance(self._examples, CountedSource):
            return self._examples.location(index)
        return f"example {index}"
