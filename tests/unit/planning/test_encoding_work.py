"""Texts and tokens of evaluations, by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quarry.data.prompts import Prompt
from quarry.evaluation.benchmark import BenchmarkSet, ExpectedCounts
from quarry.evaluation.benchmarks.suite import suite_benchmark
from quarry.planning import rate
from quarry.planning.encoding_work import (
    CHAT_TOKENS,
    EncodingWork,
    Frames,
    SetLengths,
    TextFrame,
    encoding_work,
    estimated_frames,
    text_tokens,
)
from quarry.types import RetrievalSet

NOTHING: Frames = {"query": TextFrame(num_tokens=0), "document": TextFrame(num_tokens=0)}


def unread() -> RetrievalSet:
    raise AssertionError("a plan must not read what is published")


def a_set(name: str, *, corpus: str | None = None, pages: str | None = None) -> BenchmarkSet:
    """10 queries of 40 characters, 100 documents of 400."""
    counts = ExpectedCounts(num_queries=10, num_documents=100, num_positives=10)
    return BenchmarkSet(
        name=name, load=unread, expected=counts, mean_characters=(40, 400), corpus=corpus,
        pages=pages,
    )  # fmt: skip


def work(*sets: BenchmarkSet, is_stored: bool = True, **more: Any) -> EncodingWork:
    return encoding_work(sets, prompt=Prompt(), frames=NOTHING, is_stored=is_stored, **more)


def test_published_counts_and_lengths() -> None:
    found = work(a_set("one"))
    assert (found.num_texts, found.num_tokens) == (110, 10 * 10 + 100 * 100)
    assert found.largest_corpus == 100
    assert found.unknown_sets == ()
    assert found.hours(tokens_per_s=10.1, num_devices=10) == pytest.approx(10_100 / 101 / 3600)
    assert found.embedding_bytes(dim=8, itemsize=2) == 110 * 16


@pytest.mark.parametrize(("is_stored", "num_third"), [(True, 10), (False, 110)])
def test_a_corpus_that_comes_again_is_encoded_again_without_a_store(
    is_stored: bool, num_third: int
) -> None:
    sets = (a_set("one", corpus="x"), a_set("two", corpus="y"), a_set("three", corpus="x"))
    assert [one.num_texts for one in work(*sets, is_stored=is_stored).sets] == [110, 110, num_third]
    followed = (sets[0], sets[2])
    assert [one.num_texts for one in work(*followed, is_stored=is_stored).sets] == [110, 10]


@pytest.mark.parametrize(("is_stored", "num_second"), [(True, 10), (False, 110)])
def test_pages_that_two_corpora_share_are_in_the_store(is_stored: bool, num_second: int) -> None:
    sets = (a_set("one", corpus="x", pages="w"), a_set("two", corpus="y", pages="w"))
    assert work(*sets, is_stored=is_stored).sets[1].num_texts == num_second


def test_a_set_that_nobody_has_counted_is_unknown_and_not_zero() -> None:
    own = BenchmarkSet(name="own", load=unread)
    found = work(a_set("one"), own)
    assert found.unknown_sets == ("own",)
    assert found.sets[1].num_texts is None
    assert found.sets[1].num_tokens is None
    assert found.num_texts == 110
    counted = SetLengths(
        num_queries=2, num_documents=3, tokens_per_query=5, tokens_per_document=7, source="counted"
    )
    again = encoding_work(
        [own], prompt=Prompt(), frames=NOTHING, is_stored=True, count=lambda _: counted
    )
    assert (again.num_texts, again.num_tokens) == (5, 2 * 5 + 3 * 7)


def test_a_prefix_that_texts_share_is_computed_once_a_pass() -> None:
    prefix = {"query": 3, "document": 20}
    sets = (a_set("one", corpus="x"), a_set("two", corpus="x"))
    found, plain = work(*sets, prefix_tokens=prefix), work(*sets)
    assert found.num_tokens == plain.num_tokens == plain.num_computed_tokens
    first, second = (one.num_computed_tokens for one in found.sets)
    assert first == 10 * 10 + 100 * 100 - 3 * 9 - 20 * 99
    assert second == 10 * 10 - 3 * 9, "its corpus is there already"
    assert found.num_computed_tokens == first + second
    assert found.hours(tokens_per_s=10) == pytest.approx((first + second) / 10 / 3600)
    unknown = work(BenchmarkSet(name="own", load=unread), prefix_tokens=prefix)
    assert unknown.sets[0].num_computed_tokens is None


@pytest.mark.parametrize("name", ["promptreps_base", "promptreps_instruct"])
def test_computed_tokens_at_the_rate_without_template_take_as_long_as_measured(name: str) -> None:
    """So the rate, which has the pooled last layer already, counts nothing twice."""
    content = json.loads(rate.MEASURED.read_text(encoding="utf-8"))
    measured = content["parts"]["study"]["encoding"]
    part, plain = measured[name], measured["last_token"]["tokens_per_s"]["pooled"]
    num_texts, num_tokens = part["num_texts"], part["num_tokens"]
    length = num_tokens / num_texts
    one = SetLengths(
        num_queries=0, num_documents=num_texts, tokens_per_query=0, tokens_per_document=length,
        source="measured",
    )  # fmt: skip
    prefix = {"query": 0, "document": part["num_shared_tokens"]}
    own = BenchmarkSet(name="own", load=unread)
    planned = work(own, count=lambda _: one, prefix_tokens=prefix).hours(tokens_per_s=plain)
    assert planned * 3600 == pytest.approx(num_tokens / part["tokens_per_s"]["shared"], rel=0.02)
    encode = content["parts"]["encode_7b"]["ours"]["tokens_per_s"]
    assert encode == pytest.approx(plain, rel=0.02), "measured with the same layers"


def test_lengths_are_cut_where_the_prompt_cuts() -> None:
    frame = TextFrame(num_tokens=8)
    whole = Prompt(max_document_length=100)
    assert text_tokens(200, "document", prompt=whole, frame=frame) == 58
    assert text_tokens(4000, "document", prompt=whole, frame=frame) == 100
    text = Prompt(max_document_length=100, length_counts="text")
    assert text_tokens(4000, "document", prompt=text, frame=frame) == 108
    twice = TextFrame(num_tokens=8, num_copies=2)
    assert text_tokens(200, "document", prompt=text, frame=twice) == 2 * 50 + 8


def test_a_frame_without_a_tokenizer() -> None:
    plain = estimated_frames(Prompt(query="Query: {text}", document="{text}"))
    assert plain["query"] == TextFrame(num_tokens=7 / 4 + 1)
    assert plain["document"] == TextFrame(num_tokens=1), "the end token"
    chat = estimated_frames(Prompt(is_chat=True, assistant="word", end_token=None))
    assert chat["query"].num_tokens == 1 + CHAT_TOKENS


def test_fever_and_climate_fever_share_their_pages(tmp_path: object) -> None:
    benchmark = suite_benchmark(
        name="beir", members=["fever", "climate-fever"], sets=None, path=None, check_counts=True,
        cache_dir=str(tmp_path),
    )  # fmt: skip
    for order in (benchmark.sets, benchmark.sets[::-1]):
        assert work(*order).num_texts - 1535 - 6666 in (5_416_568, 5_416_593)
    assert work(*benchmark.sets, is_stored=False).num_texts == 1535 + 6666 + 5_416_568 + 5_416_593
