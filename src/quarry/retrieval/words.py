"""Split texts into words as Lucene's standard tokenizer does: Unicode's annex 29, and emoji."""

from __future__ import annotations

import functools
import re

from quarry.retrieval.word_break_classes import RANGES

MAX_LENGTH = 255
"""UTF-16 code units in a word; longer words are split."""

# The rules are regular expressions over classes: a text is first translated, a letter a character.
_X = "[XYZVTMGDC]*"
_HEBREW = f"""H{_X}(?:'{_X}|"{_X}H{_X})"""
_LETTERS = f"[AHB]{_X}(?:[:.']{_X}[AHB]{_X})*"
_DIGITS = f"N{_X}(?:[,.']{_X}N{_X})*"
_PART = f"(?:(?:{_HEBREW}|{_LETTERS}|{_DIGITS})+|(?:K{_X})+)"
_WORD = re.compile(
    f"(?:E{_X})*{_PART}(?:(?:E{_X})+{_PART})*(?:E{_X})*"  # "don't", "3.14", "__init__"
    f"|(?:[SY]{_X})+"  # Thai and the like are not cut
    f"|J{_X}"
)
_M = "[XYZMGDC]*"  # what extends an emoji: styles have rules of their own
_PICTOGRAPH = f"[PB]{_M}V?(?:G+D)?"
_EMOJI = re.compile(
    f"(?:Z*{_PICTOGRAPH}|M{_M})(?:(?:(?<=Z)|Z+){_PICTOGRAPH})*|R{_X}R{_X}|#{_M}V?C{_M}"
)


@functools.cache
def _class_of() -> dict[int, str]:
    found: dict[int, str] = {}
    for letter, ranges in RANGES.items():
        for each in ranges.split():
            first, _, last = each.partition("-")
            found |= dict.fromkeys(range(int(first, 16), int(last or first, 16) + 1), letter)
    return found


def words(text: str) -> list[str]:
    """Return the words of a text in their order, as they are written."""
    if text.isascii() and text.isalnum() and len(text) <= MAX_LENGTH:
        return [text]
    classes = text.translate(_class_of())
    if len(text) <= MAX_LENGTH // 2 and not _EMOJI.search(classes):
        return [text[slice(*match.span())] for match in _WORD.finditer(classes)]
    found, start = [], 0
    while start < len(text):
        end = _end_of_word(classes, start, limit=_limit(text, start))
        if end > start:
            found.append(text[start:end])
        start = max(end, start + 1)
    return found


def _end_of_word(classes: str, start: int, *, limit: int) -> int:
    """Return the end of the longest word or emoji that begins at `start`; `start` if none does."""
    matches = [pattern.match(classes, start, limit) for pattern in (_WORD, _EMOJI)]
    return max([start, *(match.end() for match in matches if match)])


def _limit(text: str, start: int) -> int:
    """Return where a word that begins at `start` is split; a letter beyond U+FFFF counts as two."""
    window = text[start : start + MAX_LENGTH]
    if window.isascii():
        return start + MAX_LENGTH
    length = 0
    for position, letter in enumerate(window, start):
        length += 1 + (letter > "\uffff")
        if length > MAX_LENGTH:
            return position
    return start + MAX_LENGTH
