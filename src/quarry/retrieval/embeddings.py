"""Embeddings as search takes them: any rows that can be had a slice at a time."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quarry.types import Document, Query, Role


class Embeddings(Protocol):
    """[num_embeddings, dim] on the CPU or a device; a tensor is one."""

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor:
        """The rows of a slice, as a tensor."""
        ...


class GatheredEmbeddings:
    """The rows of several arrays, in any order and as often as asked for, read when sliced.

    Nothing is copied before: arrays that are mapped from files cost no memory of their own. Equal
    rows are equal to the bit.

    Args:
        parts: arrays [num_rows, dim], each with the number that its first row has; in order.
        rows: [num_embeddings] the number of each embedding's row.
        dim, dtype: of all parts.
    """

    def __init__(
        self,
        *,
        parts: Sequence[tuple[int, NDArray[np.floating]]],
        rows: NDArray[np.int64],
        dim: int,
        dtype: torch.dtype,
    ) -> None:
        ends = np.array([start + len(part) for start, part in parts], dtype=np.int64)
        self._starts = np.array([start for start, _ in parts], dtype=np.int64)
        # a file that was cut off since it was verified must not lend another row
        assert (rows < ends[np.searchsorted(self._starts, rows, side="right") - 1]).all()
        self._parts = [part for _, part in parts]
        self._rows = rows
        self.shape = (len(rows), dim)
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice, /) -> Tensor:
        """A copy of these rows, in memory."""
        wanted = self._rows[rows]
        gathered = torch.empty(len(wanted), self.shape[1], dtype=self.dtype)
        part_of = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(part_of):
            part, local = self._parts[number], wanted - self._starts[number]
            is_here = part_of == number
            if is_here.all():
                # mode="clip" writes to `out` as it goes; there are no rows out of range
                np.take(part, local, axis=0, out=gathered.numpy(), mode="clip")
            else:
                gathered.numpy()[is_here] = part[local[is_here]]
        return gathered

    def choose(self, rows: NDArray[np.int64]) -> GatheredEmbeddings:
        """These rows of the same arrays: [num_chosen], in any order and as often as asked for."""
        chosen = copy(self)
        chosen._rows = self._rows[rows]
        chosen.shape = (len(rows), self.shape[1])
        return chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingShare:
    """The part of a corpus that this process searches; those of all processes make the whole.

    Attributes:
        items: [num_items] positions in the corpus.
        embeddings: [num_items, dim] of these.
    """

    items: NDArray[np.int64]
    embeddings: GatheredEmbeddings


class TextEncoder(Protocol):
    """Texts in, embeddings out: from a model, or from where they were kept."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        ...

    def encode(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> Embeddings:
        """One embedding an item, in the order of the items.

        Args:
            role: which prompt and length the texts get.
            label: what the texts are called in progress bars, logs and messages.
        """
        ...

    def encode_share(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> EmbeddingShare:
        """The same, but of several processes each gets a part; with one process, the whole."""
        ...
