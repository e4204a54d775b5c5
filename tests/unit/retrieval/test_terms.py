"""What is a term: words as Lucene's English analyser makes them, identifiers by their parts."""

from __future__ import annotations

import dataclasses

import pytest

from quarry.errors import UserError
from quarry.retrieval.terms import CodeAnalyzer, TextAnalyzer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Runners were running to A house", ["runner", "were", "run", "hous"]),
        ("x 2 times", ["x", "2", "time"]),  # single characters are words
        ("the dog's bone, the dogs’ bones", ["dog", "bone", "dog", "bone"]),
        ("x-ray and/or NF-kB", ["x", "rai", "nf", "kb"]),
        ("3.14 or 1,000 at 10:30", ["3.14", "1,000", "10", "30"]),
        ("e.g. U.S.A. end.Start", ["e.g", "u.s.a", "end.start"]),
        ("snake_case __init__ _", ["snake_cas", "__init__"]),
        ("α-helix naïve", ["α", "helix", "naïv"]),
        ("DOG'S dog\uff07s it's THE", ["dog", "dog"]),
        ("İstanbul ΟΔΟΣ", ["istanbul", "οδοσ"]),  # letter by letter, no final sigma
        ("possibly biology geologically", ["possibl", "biologi", "geolog"]),
        ("+ - ...", []),
        ("", []),
    ],
)
def test_text_tokenizer(text: str, expected: list[str]) -> None:
    assert TextAnalyzer()(text) == expected


def test_other_stemmers_and_stop_words() -> None:
    text = "The generously running houses"
    assert TextAnalyzer(stemmer="english")(text) == ["generous", "run", "hous"]
    assert TextAnalyzer(stemmer=None)(text) == ["generously", "running", "houses"]
    assert TextAnalyzer(stemmer=None, stop_words=["running"])(text)[:2] == ["the", "generously"]
    assert TextAnalyzer(stop_words=[])("the")  # no words are left out, not the default ones


def test_unknown_stemmer_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"'klingon'.*english"):
        TextAnalyzer(stemmer="klingon")


def test_settings_are_all_that_a_tokenizer_depends_on() -> None:
    used = TextAnalyzer(stop_words=["a"])
    used("some words")
    assert used == TextAnalyzer(stop_words=["a"]) != TextAnalyzer()
    assert dataclasses.asdict(used) == {"stemmer": "porter", "stop_words": ["a"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parseHTTPResponse_v2", ["parse", "http", "response", "v", "2"]),
        ("HTTPServer", ["http", "server"]),
        ("getURLs userIDs", ["get", "urls", "user", "ids"]),
        ("HTTPSConnection", ["https", "connection"]),
        ("__init__(self, x1=0.5)", ["init", "self", "x", "1", "0", "5"]),
        ("MAX_SIZE", ["max", "size"]),
        ("kebab-case dotted.path", ["kebab", "case", "dotted", "path"]),
        ("getA", ["get", "a"]),
        ("iPhone utf8 OAuth2Token", ["i", "phone", "utf", "8", "o", "auth", "2", "token"]),
        ("naïve café", ["naïve", "café"]),
        ("the README's 3rd", ["the", "readme", "s", "3", "rd"]),
        ("+ - ()", []),
    ],
)
def test_code_tokenizer(text: str, expected: list[str]) -> None:
    assert CodeAnalyzer()(text) == expected


def test_tokenizers_say_in_words_what_they_are() -> None:
    assert TextAnalyzer().description == "Lucene's English analyzer"
    other = TextAnalyzer(stemmer=None, stop_words=["a", "b"]).description
    assert other == "Lucene's words with no stemmer and 2 own stop words"
    assert "stemmer english and Lucene's stop" in TextAnalyzer(stemmer="english").description
    assert CodeAnalyzer().description.startswith("parts of identifiers")
