"""Find equal texts, so that each is encoded once however often it occurs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

NUM_HASH_BYTES = 16
HASH = f"S{NUM_HASH_BYTES}"
"""A hash in numpy's type for sorting. (Its single elements would lose zeros at the end.)"""

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class UniqueTexts:
    """The different texts of some items, in the order in which they first appear.

    Attributes:
        hashes: [num_texts] hash of each text.
        first: [num_texts] the first item with the text.
        text_of: [num_items] the text of each item.
    """

    hashes: NDArray[np.bytes_]
    first: NDArray[np.int64]
    text_of: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.hashes)


def unique_texts(items: Iterable[Item], text_of: Callable[[Item], str]) -> UniqueTexts:
    """Find equal items by their `text_of`; read them once, in order.

    Compares 128 bits of BLAKE2b: a collision by chance occurs in one of 10^24 corpora of ten
    million.
    """
    digests = bytearray()
    for item in items:
        # half a character (a lone surrogate) has no UTF-8, and is a text all the same
        text = text_of(item).encode("utf-8", "surrogatepass")
        digests += hashlib.blake2b(text, digest_size=NUM_HASH_BYTES).digest()
    hashes = np.frombuffer(bytes(digests), dtype=HASH)
    ordered, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return UniqueTexts(hashes=ordered[order], first=first[order], text_of=place[inverse])


class ChosenItems(Sequence[Item]):
    """A selection of items as a sequence.

    Args:
        items: all items; may be memory-mapped.
        rows: [num_chosen] the selected ones, ascending.
    """

    def __init__(self, items: Sequence[Item], rows: NDArray[np.int64]) -> None:
        self._items = items
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if not isinstance(index, slice):
            return self._items[int(self._rows[index])]
        rows = self._rows[index].tolist()
        if not rows:
            return []
        first, last = rows[0], rows[-1]
        if last - first >= 2 * len(rows):
            return [self._items[row] for row in rows]
        # few are left out: mapped items are read much faster in one piece
        piece = self._items[first : last + 1]
        return [piece[row - first] for row in rows]
