"""Split texts into the terms that BM25 matches: prose as Lucene does, code by parts of names."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from quarry.errors import UserError
from quarry.retrieval import porter
from quarry.retrieval.words import words


class Analyzer(Protocol):
    """Splits a text into terms; the same one serves queries and documents.

    A frozen dataclass states all its settings: rankings made with it can be cached.
    """

    def __call__(self, text: str) -> list[str]: ...


# Words never contain ASCII space: each distinct piece between spaces is split once.
_CHUNKS = re.compile(r"\S+", re.ASCII)
_NUM_CACHED = 1 << 20
_POSSESSIVE = re.compile(r"(?<=.)['\u2019\uff07][sS]\Z", re.DOTALL)

# Capitals with the s of a plural (URLs), or not followed by a small letter (HTTP of HTTPResponse);
# or a word; or digits. Letters without ASCII case count as small.
_PARTS = re.compile(r"[A-Z]{2,}s(?![^\W\d_A-Z])|[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|\d+")


@dataclass(frozen=True, kw_only=True)
class TextAnalyzer:
    """Lucene's analyzer: words without possessive 's and stop words, lower-cased and stemmed.

    The terms are those of Anserini's default for English, on any Unicode text.

    Args:
        stemmer: `porter`, as in Lucene; another Snowball algorithm such as `english`; or None to
            keep words as they are.
        stop_words: lower-cased words to leave out; None: Lucene's English list, 33 words.
    """

    stemmer: str | None = "porter"
    stop_words: Sequence[str] | None = None

    @property
    def description(self) -> str:
        """Description for reports."""
        if self.stemmer == "porter" and self.stop_words is None:
            return "Lucene's English analyzer"
        stemmer = "no stemmer" if self.stemmer is None else f"stemmer {self.stemmer}"
        words = "Lucene's" if self.stop_words is None else f"{len(self.stop_words)} own"
        return f"Lucene's words with {stemmer} and {words} stop words"

    def __post_init__(self) -> None:
        import Stemmer

        if self.stemmer is not None and self.stemmer not in Stemmer.algorithms():
            raise UserError(
                f"bm25 tokenizer: there is no Snowball stemmer {self.stemmer!r}; "
                f"choose one of {', '.join(Stemmer.algorithms())}, or null for none"
            )

    def __call__(self, text: str) -> list[str]:
        return list(chain.from_iterable(map(self._terms, _CHUNKS.findall(text))))

    @functools.cached_property
    def _terms(self) -> Callable[[str], tuple[str, ...]]:
        """Text without space -> its terms, cached: a corpus repeats its words."""
        from bm25s.stopwords import STOPWORDS_EN

        left_out = frozenset(STOPWORDS_EN if self.stop_words is None else self.stop_words)
        stem = functools.lru_cache(_NUM_CACHED)(self._stem())

        @functools.lru_cache(_NUM_CACHED)
        def terms(chunk: str) -> tuple[str, ...]:
            found = [lower_cased(_POSSESSIVE.sub("", word)) for word in words(chunk)]
            return tuple([stem(word) for word in found if word not in left_out])

        return terms

    def _stem(self) -> Callable[[str], str]:
        if self.stemmer is None:
            return str
        if self.stemmer == "porter":
            return porter.stem
        import Stemmer

        stem: Callable[[str], str] = Stemmer.Stemmer(self.stemmer).stemWord
        return stem


def lower_cased(word: str) -> str:
    """Return the word in lower case, letter by letter as Java does: one letter for each."""
    return word.replace("\u0130", "i").replace("\u03a3", "\u03c3").lower()


@dataclass(frozen=True, kw_only=True)
class CodeAnalyzer:
    """Identifiers split at underscores, camelCase, digits, lower-cased; no stop words, no stemmer.

    `parseHTTPResponse_v2` gives parse, http, response, v, 2. Prose passes through the same rules.
    """

    @property
    def description(self) -> str:
        """Description for reports."""
        return "parts of identifiers (underscores, camelCase, digits)"

    def __call__(self, text: str) -> list[str]:
        return [part.lower() for part in _PARTS.findall(text)]
