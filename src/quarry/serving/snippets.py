"""Cut the part of a document that has most of a query's words, and mark these words."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Set
from functools import lru_cache

from quarry.retrieval.terms import CodeAnalyzer, TextAnalyzer

MAX_CHARACTERS = 320
"""Characters of a snippet."""

NUM_CHARACTERS_READ = 8_000
"""Characters at the beginning of a document in which words are looked for."""

MAX_CACHED_CHARACTERS = 40
"""Words of documents up to this length are analyzed once."""

Part = tuple[str, bool]
"""A piece of text, and whether it is a word of the query."""

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_text, _code = TextAnalyzer(), CodeAnalyzer()


def query_terms(query: str) -> Set[str]:
    """Return the terms of a query: stems of its words, and parts of its identifiers."""
    stems = set(_text(query))
    return stems | {stem for part in _code(query) for stem in _text(part)}


def snippet(text: str, terms: Set[str]) -> list[Part]:
    """Return the part of a text with most distinct terms of a query, in pieces.

    Args:
        terms: see `query_terms`.
    """
    matches = _matches(text[:NUM_CHARACTERS_READ], terms)
    start = _best_start(text[:NUM_CHARACTERS_READ], matches)
    end = _end(text, start)
    parts: list[Part] = [("\u2026", False)] if start else []
    parts += _marked(text, matches, start=start, end=end)
    return [*parts, ("\u2026", False)] if end < len(text) else parts


def marked(text: str, terms: Set[str]) -> list[Part]:
    """Return a short text in pieces, all of it."""
    return _marked(text, _matches(text[:NUM_CHARACTERS_READ], terms), start=0, end=len(text))


def _matches(text: str, terms: Set[str]) -> list[re.Match[str]]:
    return [match for match in _WORD.finditer(text) if terms & _terms(match[0])]


def _marked(text: str, matches: list[re.Match[str]], *, start: int, end: int) -> list[Part]:
    parts: list[Part] = []
    place = start
    for match in matches:
        if match.start() >= place and match.end() <= end:
            parts += [(text[place : match.start()], False), (match[0], True)]
            place = match.end()
    parts.append((text[place:end], False))
    return [part for part in parts if part[0]]


def _end(text: str, start: int) -> int:
    """Return the end of a snippet, after a complete word where there is one."""
    end = start + MAX_CHARACTERS
    if end >= len(text):
        return len(text)
    space = text.rfind(" ", start + MAX_CHARACTERS * 3 // 4, end)
    return end if space < 0 else space


def _terms(word: str) -> Set[str]:
    return _cached_terms(word) if len(word) <= MAX_CACHED_CHARACTERS else _read_terms(word)


def _read_terms(word: str) -> Set[str]:
    parts = _code(word)
    found = set(_text(word))
    return found if len(parts) < 2 else found.union(*(_text(part) for part in parts))


_cached_terms = lru_cache(maxsize=16_384)(_read_terms)


def _best_start(text: str, matches: list[re.Match[str]]) -> int:
    """Return where the window with most distinct matched words begins, a little before them."""
    best, best_count = 0, 0
    window: deque[str] = deque()  # words from `match` on, up to the limit
    counts: Counter[str] = Counter()
    following = 0
    for number, match in enumerate(matches):
        following = max(following, number)
        limit = match.start() + MAX_CHARACTERS * 3 // 4
        while following < len(matches) and matches[following].end() <= limit:
            window.append(matches[following][0].lower())
            counts[window[-1]] += 1
            following += 1
        if len(counts) > best_count:
            best, best_count = match.start(), len(counts)
        if window:
            word = window.popleft()
            counts[word] -= 1
            if not counts[word]:
                del counts[word]
    if best <= MAX_CHARACTERS // 4 or len(text) <= MAX_CHARACTERS:
        return 0
    start = best - MAX_CHARACTERS // 8
    space = text.find(" ", start, best)
    return start if space < 0 else space + 1
