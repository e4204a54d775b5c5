"""Derive ids from texts, and check that a given id stands for only one text."""

from __future__ import annotations

import hashlib
from array import array

import numpy as np

_BEFORE = 20


def text_id(text: str) -> str:
    """Return 32 hex digits, a 128-bit hash of the text: equal texts have equal ids."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class GivenIds:
    """Collect which id each record gives to which text, to find ids with two texts.

    Only hashes are stored: for a training set like MS MARCO's, with 15 million passages, they take
    360 MB while its table is built.

    Attributes:
        record: number of the current record, from 0 through all files; set by the reader.
    """

    def __init__(self) -> None:
        self.record = 0
        self._ids = array("q")
        self._texts = array("q")
        self._records = array("q")

    def add(self, given: str, *texts: str) -> None:
        """Record that the current record gives this id to these texts (title and text)."""
        # Python's own hash: 64 bits and fast; it may differ between processes, but this is one
        self._ids.append(hash(given))
        self._texts.append(hash(texts))
        self._records.append(self.record)

    def first_contradiction(self) -> tuple[int, int] | None:
        """Return (earlier, later) records that give an id to different texts, if there are any."""
        ids, texts = (np.frombuffer(each, np.int64) for each in (self._ids, self._texts))
        order = np.argsort(ids, kind="stable")
        is_same = ids[order[1:]] == ids[order[:-1]]
        wrong = np.flatnonzero(is_same & (texts[order[1:]] != texts[order[:-1]]))
        if not wrong.size:
            return None
        first = wrong[np.argmin(order[wrong + 1])]
        return self._records[order[first]], self._records[order[first + 1]]


def first_difference(one: str, other: str) -> tuple[str, str]:
    """Return the rest of both texts from 20 characters before their first difference."""
    pairs = zip(one, other, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    start = max(0, place - _BEFORE)
    mark = "..." if start else ""
    return f"{mark}{one[start:]}", f"{mark}{other[start:]}"
