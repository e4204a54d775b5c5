"""Stems that Lucene's Porter gives, where others differ or a condition decides."""

from __future__ import annotations

import pytest

from quarry.retrieval.porter import stem


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("possibly", "possibl"),
        ("biology", "biologi"),
        ("geologically", "geolog"),
        ("analogy", "analog"),
        ("as", "as"),
        ("ties", "ti"),
        ("caresses", "caress"),
        ("agreed", "agre"),
        ("feed", "feed"),
        ("hopping", "hop"),
        ("hoping", "hope"),
        ("falling", "fall"),
        ("sky", "sky"),
        ("happy", "happi"),
        ("relational", "relat"),
        ("adoption", "adopt"),
        ("controlling", "control"),
        ("rate", "rate"),
        ("cease", "ceas"),
        ("naïveness", "naïv"),
        ("𐐨s", "𐐨"),  # two UTF-16 code units and an s: long enough
        ("a𐐨𐐨ed", "a𐐨𐐨"),  # its halves differ: no double consonant
    ],
)
def test_stem(word: str, expected: str) -> None:
    assert stem(word) == expected
