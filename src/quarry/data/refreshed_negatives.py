"""Read the hard negatives that were mined in training, by the optimizer step of their mining."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quarry.runtime.files import remove, replacing
from quarry.types import Document


class RefreshedNegatives:
    """Hard negatives of every example, as places among passages, in a file for each step.

    Processes that prepare batches read a step's file when a key first names the step.

    Args:
        folder: for the files.
        passages: what the places refer to.
    """

    def __init__(self, *, folder: Path, passages: Sequence[Document]) -> None:
        self.folder = folder
        self.passages = passages
        self._written: list[Path] = []
        self._step = -1
        self._starts: NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        self._places: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def write(self, step: int, starts: NDArray[np.int64], places: NDArray[np.int64]) -> None:
        """Write the lists of a step; remove all but those and the ones that were written before.

        Args:
            starts: [num_examples + 1] where those of each example begin.
            places: all of them.
        """
        with replacing(self._path(step)) as partial, partial.open("wb") as file:
            np.savez(file, starts=starts, places=places)
        # batches of the one before may still be in preparation
        self._written = [*self._written, self._path(step)][-2:]
        for other in set(self.folder.glob("step_*.npz")) - set(self._written):
            remove(other)

    def documents(self, step: int, index: int) -> tuple[Document, ...]:
        """Return the hard negatives of an example, best first; none where none was found."""
        if step != self._step:
            with np.load(self._path(step)) as lists:
                self._starts, self._places = lists["starts"], lists["places"]
            self._step = step
        own = self._places[self._starts[index] : self._starts[index + 1]]
        return tuple([self.passages[place] for place in own.tolist()])

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step}.npz"
