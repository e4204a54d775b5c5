"""Ids that are made from texts, and the check that a given id stands for one text alone."""

from __future__ import annotations

import hashlib
from array import array

import numpy as np

_BEFORE = 20


def text_id(text: str) -> str:
    """Return an id that is made from a text: the same text always has the same one."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class GivenIds:
    """The ids that records give to texts, with 24 bytes for each time that one stands there.

    Only hashes are kept: of a training set like MS MARCO's, with 15 million passages, they take
    360 MB while its table is built.

    Attributes:
        record: which record is being read, counted from 0 through all files; set by the reader.
    """

    def __init__(self) -> None:
        self.record = 0
        self._ids = array("q")
        self._texts = array("q")
        self._records = array("q")

    def add(self, given: str, *texts: str) -> None:
        """Note that the record gives this id to these texts (title and text)."""
        # Python's own hash: 64 bits, fast, and all of this happens in one process
        self._ids.append(hash(given))
        self._texts.append(hash(texts))
        self._records.append(self.record)

    def first_contradiction(self) -> tuple[int, int] | None:
        """Return the first record that gives an id to another text, after the one before it."""
        ids, texts = (np.frombuffer(each, np.int64) for each in (self._ids, self._texts))
        order = np.argsort(ids, kind="stable")
        is_same = ids[order[1:]] == ids[order[:-1]]
        wrong = np.flatnonzero(is_same & (texts[order[1:]] != texts[order[:-1]]))
        if not wrong.size:
            return None
        first = wrong[np.argmin(order[wrong + 1])]
        return self._records[order[first]], self._records[order[first + 1]]


def first_difference(one: str, other: str) -> tuple[str, str]:
    """Return two texts from a little before the place where they begin to differ."""
    pairs = zip(one, other, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    start = max(0, place - _BEFORE)
    mark = "..." if start else ""
    return f"{mark}{one[start:]}", f"{mark}{other[start:]}"
