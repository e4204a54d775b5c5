"""Pairs within a length: what is cut, what is counted, what is refused."""

from __future__ import annotations

import logging

import pytest

from helpers.models import letter_tokenizer
from helpers.rerankers import pair_tokenizer, pairs_of
from quarry.data.pair_tokenization import QWEN3, PairFrame, PairTokenizer
from quarry.errors import UserError
from quarry.models.backbones.special_tokens import around
from quarry.types import Document, Query


def words(ids: list[int]) -> str:
    return " ".join(pair_tokenizer().convert_ids_to_tokens(ids))


def tokens_of(*pair: str, max_length: int = 256, frame: PairFrame | None = None) -> str:
    tokenizer = PairTokenizer(
        key="task.teacher", tokenizer=pair_tokenizer(), max_length=max_length, frame=frame
    )
    (found,) = tokenizer(pairs_of((pair[0], pair[1])))
    return words(found.ids.tolist()) + (" (cut)" if found.is_cut else "")


def test_two_sequences_are_joined_by_the_tokenizer_and_have_its_types() -> None:
    own = pair_tokenizer()
    (found,) = PairTokenizer(key="task.teacher", tokenizer=own, max_length=256, frame=None)(
        pairs_of(("ab", "cd"))
    )
    assert words(found.ids.tolist()) == "<cls> a b <sep> c d <sep>"
    assert found.type_ids is None
    own.model_input_names = ["input_ids", "token_type_ids"]
    (found,) = PairTokenizer(key="task.teacher", tokenizer=own, max_length=256, frame=None)(
        pairs_of(("ab", "cd"))
    )
    assert found.type_ids is not None
    assert found.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_a_title_stands_before_the_text() -> None:
    tokenizer = PairTokenizer(
        key="task.teacher", tokenizer=pair_tokenizer(), max_length=256, frame=None
    )
    pair = Query(query_id="q", text="a"), Document(document_id="d", title="b", text="c")
    (found,) = tokenizer([pair])
    assert words(found.ids.tolist()) == "<cls> a <sep> b c <sep>"


@pytest.mark.parametrize(
    ("query", "document", "max_length", "wanted"),
    [
        ("ab", "cdef", 9, "<cls> a b <sep> c d e f <sep>"),
        ("ab", "cdef", 8, "<cls> a b <sep> c d e <sep> (cut)"),
        ("abcdef", "gh", 9, "<cls> a b c <sep> g h <sep> (cut)"),  # half of the room: 3 tokens
        ("abcdef", "ghijk", 9, "<cls> a b c <sep> g h i <sep> (cut)"),
    ],
)
def test_the_document_is_cut_and_a_query_of_more_than_half_of_the_room(
    query: str, document: str, max_length: int, wanted: str
) -> None:
    assert tokens_of(query, document, max_length=max_length) == wanted


def test_a_frame_keeps_prefix_and_suffix_and_cuts_the_document() -> None:
    frame = PairFrame(
        prefix="X", body="{instruction}{query}:{document}", suffix="Y", instruction="i"
    )
    assert tokens_of("ab", "cdef", frame=frame) == "<cls> X i a b : c d e f Y <sep>"
    assert (
        tokens_of("ab", "cdef", frame=frame, max_length=10) == "<cls> X i a b : c d Y <sep> (cut)"
    )
    bare = PairTokenizer(
        key="task.teacher",
        tokenizer=pair_tokenizer(),
        max_length=8,
        frame=frame,
        add_special_tokens=False,
    )
    assert words(bare(pairs_of(("ab", "cdef")))[0].ids.tolist()) == "X i a b : c d Y"


@pytest.mark.parametrize(("start", "end"), [([1], [2]), ([], [2]), ([1], []), ([], [])])
def test_a_framed_pair_is_what_the_tokenizer_makes_of_that_text(
    start: list[int], end: list[int]
) -> None:
    tokenizer = pair_tokenizer()
    tokenizer.backend_tokenizer.post_processor = around(tokenizer, start, end)
    frame = PairFrame(prefix="x:", body="q {query} d {document}", suffix=".")
    pairs = PairTokenizer(key="task.teacher", tokenizer=tokenizer, max_length=64, frame=frame)
    (found,) = pairs(pairs_of(("ab", "cd")))
    assert found.ids.tolist() == tokenizer("x: q ab d cd .")["input_ids"]


def test_braces_in_texts_are_text() -> None:
    frame = PairFrame(body="{instruction} {query} {document}", instruction="{query}")
    assert frame.rendered("{document}", "{query}") == "{query} {document} {query}"


def test_qwen3s_frame_is_that_of_its_model_card() -> None:
    assert QWEN3.rendered("q", "d") == (
        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
        "<Query>: q\n<Document>: d"
    )


@pytest.mark.parametrize("body", ["{query}", "{document}{query}", "{query}{query}{document}"])
def test_a_body_without_its_fields_is_refused(body: str) -> None:
    with pytest.raises(UserError, match=r"task\.teacher\.frame\.body"):
        PairFrame.of({"body": body}, key="task.teacher.frame")


def test_a_length_without_room_is_refused() -> None:
    with pytest.raises(UserError, match="max_length=4"):
        PairTokenizer(key="task.teacher", tokenizer=pair_tokenizer(), max_length=4, frame=None)


def test_a_tokenizer_that_ends_one_text_and_no_pair_is_refused() -> None:
    tokenizer = pair_tokenizer()
    tokenizer.eos_token = "<sep>"
    put = around(tokenizer, [1], [2])
    tokenizer.backend_tokenizer.post_processor = put
    with pytest.raises(UserError, match="frame=null"):
        PairTokenizer(key="task.teacher", tokenizer=tokenizer, max_length=64, frame=None)
    PairTokenizer(key="task.teacher", tokenizer=tokenizer, max_length=64, frame=PairFrame())


def test_a_pair_without_a_token_between_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        PairTokenizer(key="task.teacher", tokenizer=letter_tokenizer(), max_length=64, frame=None)
    assert "no token between" in caplog.text


def test_the_digest_depends_on_length_and_frame() -> None:
    frame = PairFrame()
    made = [(64, None), (65, None), (64, frame)]
    digests = {
        PairTokenizer(
            key="task.teacher", tokenizer=pair_tokenizer(), max_length=n, frame=f
        ).digest()
        for n, f in made
    }
    assert len(digests) == 3
