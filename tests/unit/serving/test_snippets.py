"""The part of a text that a query is about."""

from __future__ import annotations

from quarry.serving.snippets import MAX_CHARACTERS, query_terms, snippet


def marked(query: str, text: str) -> list[str]:
    return [part for part, is_match in snippet(text, query_terms(query)) if is_match]


def test_words_match_by_their_stems_and_not_by_stop_words() -> None:
    text = "The plants store light. Planting is the work of a gardener's hands."
    assert marked("the plant and gardeners", text) == ["plants", "Planting", "gardener's"]
    assert marked("the of is", text) == []
    assert marked("pl", text) == []


def test_parts_of_identifiers_match() -> None:
    text = "def parseHTTPResponse(raw_bytes): return raw_bytes.decode()"
    assert marked("parse bytes", text) == ["parseHTTPResponse", "raw_bytes", "raw_bytes"]
    assert marked("parse_response", text) == ["parseHTTPResponse"]


def test_the_pieces_are_the_text_and_the_best_part_of_a_long_one() -> None:
    short = "a cat and a dog"
    assert "".join(part for part, _ in snippet(short, query_terms("cat"))) == short
    long = "cat " + "x " * 400 + "the cat and the dog met " + "y " * 400
    parts = snippet(long, query_terms("cat dog"))
    joined = "".join(part for part, _ in parts)
    assert [part for part, is_match in parts if is_match] == ["cat", "dog"]
    assert joined.startswith("\u2026")
    assert joined.endswith("\u2026")
    assert joined.strip("\u2026") in long
    assert len(joined) <= MAX_CHARACTERS + 2


def test_texts_without_a_word_of_the_query_begin_at_their_beginning() -> None:
    assert snippet("nothing here", query_terms("cat")) == [("nothing here", False)]
    assert snippet("", query_terms("cat")) == []
    assert snippet("cat", query_terms("...")) == [("cat", False)]
    assert marked("\u732b", "\u732b \u72ac") == ["\u732b"]


def test_a_text_of_any_length_takes_little_time() -> None:
    assert marked("cat", "cat " * 500_000)[0] == "cat"
