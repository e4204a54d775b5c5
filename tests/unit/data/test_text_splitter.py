"""Long documents become pieces that hold all of their text, in order, with names of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarry.data.text_splitter import TextSplitter
from quarry.errors import UserError
from quarry.types import Document

LINES = "one\ntwo\nthree\n\nfour\nfive\n"


def pieces(text: str, **rules: object) -> list[tuple[str, str]]:
    splitter = TextSplitter(**({"unit": "characters"} | rules))  # type: ignore[arg-type]
    document = Document(document_id="d", title="t", text=text)
    return [(piece.document_id, piece.text) for piece in splitter.pieces(document)]


def test_pieces_end_at_lines_and_are_named_by_them() -> None:
    found = pieces(LINES, size=9, overlap=0)
    assert found == [
        ("d:1-2", "one\ntwo"),
        ("d:3-3", "three"),
        ("d:5-5", "four"),
        ("d:6-6", "five"),
    ]


def test_overlap_repeats_full_lines() -> None:
    found = pieces("aa\nbb\ncc\ndd\n", size=9, overlap=3)
    assert found == [("d:1-3", "aa\nbb\ncc"), ("d:3-4", "cc\ndd")]


def test_pieces_end_at_paragraphs() -> None:
    found = pieces(LINES, size=20, overlap=0, borders="paragraphs")
    assert found == [("d:1-3", "one\ntwo\nthree"), ("d:5-6", "four\nfive")]


def test_a_long_line_is_cut_between_words_and_its_pieces_differ_in_name() -> None:
    found = pieces("alpha beta gamma delta", size=11, overlap=0)
    assert found == [("d:1-1", "alpha beta "), ("d:1-1#2", "gamma delta")]


def test_words_are_counted() -> None:
    found = pieces("a b c\nd e f g h\n", size=4, overlap=0, unit="words")
    assert [text.split() for _, text in found] == [["a", "b", "c"], ["d", "e", "f", "g"], ["h"]]


def test_what_fits_keeps_its_name_and_a_blank_text_is_not_lost() -> None:
    assert pieces("short", size=10, overlap=0) == [("d", "short")]
    assert pieces(" " * 30, size=10, overlap=0) == [("d", " " * 30)]
    assert pieces("x" * 30, unit="none") == [("d", "x" * 30)]


@given(
    st.text(alphabet="ab \n", max_size=120),
    st.integers(1, 20),
    st.integers(0, 19),
    st.sampled_from(["lines", "paragraphs"]),
    st.sampled_from(["characters", "words"]),
)
def test_no_letter_is_lost_and_no_piece_is_too_long(
    text: str, size: int, overlap: int, borders: str, unit: str
) -> None:
    overlap = min(overlap, size - 1)
    found = pieces(text, size=size, overlap=overlap, borders=borders, unit=unit)
    if not text.strip():
        return
    assert len({name for name, _ in found}) == len(found)
    lengths = [len(piece) if unit == "characters" else len(piece.split()) for _, piece in found]
    assert max(lengths) <= size
    lines = text.split("\n")
    for name, piece in found if len(found) > 1 else ():
        first, last = map(int, name.partition("#")[0].partition(":")[2].split("-"))
        assert piece in "\n".join(lines[first - 1 : last])
    if overlap == 0:
        assert "".join("".join(piece.split()) for _, piece in found) == "".join(text.split())


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ({"unit": "tokens"}, "task.splitter.unit=tokens"),
        ({"borders": "pages"}, "task.splitter.borders=pages"),
        ({"size": 10, "overlap": 10}, "task.splitter.overlap=10"),
        ({"size": 0}, "task.splitter.size=0"),
    ],
)
def test_rules_that_cannot_work_are_refused(rules: dict[str, object], key: str) -> None:
    splitter = TextSplitter(**rules)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=key):
        splitter.check()


def test_a_tenth_is_repeated_unless_an_overlap_is_given() -> None:
    settled = TextSplitter(size=50).settled(are_files=True)
    assert (settled.unit, settled.overlap) == ("characters", 5)
    settled.check()
    text = "".join(f"{i:03}\n" for i in range(30))
    assert pieces(text, size=50) == pieces(text, size=50, overlap=5)
    assert pieces(text, size=50) != pieces(text, size=50, overlap=0)
