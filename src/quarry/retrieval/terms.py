"""Cuts texts into the terms that BM25 matches: prose as Lucene does, code by parts of names."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from quarry.errors import UserError


class Tokenizer(Protocol):
    """Cuts a text into the terms that are matched; queries and documents go through the same.

    One that is a frozen dataclass states all that it depends on: rankings made with it can be kept.
    """

    def __call__(self, text: str) -> list[str]: ...


# The rules of Unicode's annex 29 as far as English has use for them, which Lucene's standard
# tokeniser cuts by: "don't", "e.g" and "3.14" are words, "x-ray" and "and/or" are two.
_WORDS = re.compile(
    r"_*[^\W_]\w*(?:(?:(?<=[^\W\d_])[.:·'\u2019](?=[^\W\d_])|(?<=\d)[.,;'\u2019](?=\d))\w+)*"
)
_POSSESSIVE = re.compile(r"['\u2019]s$")

# Capitals with the s of a plural (URLs), or not followed by a small letter (HTTP of HTTPResponse);
# a word; or digits. Letters without ASCII case count as small.
_PARTS = re.compile(r"[A-Z]{2,}s(?![^\W\d_A-Z])|[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|\d+")


@dataclass(frozen=True, kw_only=True)
class TextTokenizer:
    """Words, lower-cased, without possessive 's and stop words, stemmed: Anserini's analyser.

    The stemmer is Snowball's; Lucene's own Porter has another rule for two endings, -bli and -logi.

    Args:
        stemmer: a Snowball algorithm such as `porter` or `english`, or None to keep words whole.
        stop_words: lower-cased words to leave out; None: Lucene's English list, 33 words.
    """

    stemmer: str | None = "porter"
    stop_words: Sequence[str] | None = None

    def __post_init__(self) -> None:
        import Stemmer

        if self.stemmer is not None and self.stemmer not in Stemmer.algorithms():
            raise UserError(
                f"bm25 tokenizer: there is no Snowball stemmer {self.stemmer!r}; "
                f"choose one of {', '.join(Stemmer.algorithms())}, or null for none"
            )

    def __call__(self, text: str) -> list[str]:
        return [term for term in map(self._term, _WORDS.findall(text.lower())) if term]

    @functools.cached_property
    def _term(self) -> Callable[[str], str]:
        """Word -> term, "" for a stop word. A corpus repeats its words, so each is made once."""
        import Stemmer
        from bm25s.stopwords import STOPWORDS_EN

        left_out = frozenset(STOPWORDS_EN if self.stop_words is None else self.stop_words)
        stem = Stemmer.Stemmer(self.stemmer).stemWord if self.stemmer else str

        @functools.cache
        def term(word: str) -> str:
            word = _POSSESSIVE.sub("", word)
            return "" if word in left_out else str(stem(word))

        return term


@dataclass(frozen=True, kw_only=True)
class CodeTokenizer:
    """Identifiers cut at underscores, camelCase and digits, lower-cased; no stop words, no stemmer.

    `parseHTTPResponse_v2` gives parse, http, response, v, 2. Prose passes through the same rules.
    """

    def __call__(self, text: str) -> list[str]:
        return [part.lower() for part in _PARTS.findall(text)]
