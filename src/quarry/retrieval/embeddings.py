"""Define embeddings as search reads them: any rows, a slice at a time."""

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
    """Embeddings [num_embeddings, dim] on the CPU or a device, such as a tensor."""

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Return the rows of a slice, as a tensor."""
        ...


class GatheredEmbeddings:
    """Rows of several arrays, in any order and with repetitions, read when sliced.

    Nothing is copied before that: memory-mapped arrays cost no memory of their own. Equal rows are
    bit-identical.

    Args:
        parts: (number of its first row, array [num_rows, dim]) of each array, in order.
        rows: [num_embeddings] the row number of each embedding.
        dim, dtype: shape and dtype of all parts.
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
        # a file that was truncated after its verification must not yield another row
        assert (rows < ends[np.searchsorted(self._starts, rows, side="right") - 1]).all()
        self._parts = [part for _, part in parts]
        self._rows = rows
        self.shape = (len(rows), dim)
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Return a copy of these rows in memory."""
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
        """Return these rows of the same arrays: [num_chosen], in any order and with repetitions."""
        chosen = copy(self)
        chosen._rows = self._rows[rows]
        chosen.shape = (len(rows), self.shape[1])
        return chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingShare:
    """The part of a corpus that one rank searches; the parts of all ranks make up the corpus.

    Attributes:
        items: [num_items] positions in the corpus.
        embeddings: [num_items, dim] their embeddings.
    """

    items: NDArray[np.int64]
    embeddings: GatheredEmbeddings


class TextEncoder(Protocol):
    """Encoder of texts: by a model, or from stored embeddings."""

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        ...

    def encode(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> Embeddings:
        """Return one embedding per item, in the order of the items.

        Args:
            role: decides about prompt and length of the texts.
            label: name of the texts in progress bars, logs and messages.
        """
        ...

    def encode_share(
        self, items: Sequence[Query | Document], role: Role, *, label: str = ""
    ) -> EmbeddingShare:
        """Return this rank's part of the embeddings; with one rank, all of them."""
        ...
