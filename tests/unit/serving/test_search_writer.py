"""Responses of searches are bounded, and nothing else waits while they are written."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from helpers.served import Found, InMemorySearch, served
from quarry.serving import search_writer
from quarry.serving.api_errors import ApiError
from quarry.serving.search_route import AskedSearch, found_as_data
from quarry.serving.search_writer import NUM_THREADS, SearchWriter
from quarry.types import Document

DOCUMENT = Document(document_id="a", title="A cat", text="small animal")
HIT = Found(DOCUMENT, 1.0)
CHARACTERS = len(DOCUMENT.title) + len(DOCUMENT.text)


def asked(num_queries: int = 1, *, has_snippets: bool = False) -> AskedSearch:
    texts = ["cat"] * num_queries
    return AskedSearch(texts=texts, top_k=1000, is_hybrid=False, has_snippets=has_snippets)


@pytest.fixture
def writer() -> Iterator[SearchWriter]:
    made = SearchWriter(model="tiny")
    yield made
    made.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds the writing threads until it is set."""
    is_open = threading.Event()

    def held(*arguments: Any, **named: Any) -> dict[str, Any]:
        assert is_open.wait(30)
        return found_as_data(*arguments, **named)

    monkeypatch.setattr(search_writer, "found_as_data", held)
    yield is_open
    is_open.set()


def refusal(writer: SearchWriter, asked: AskedSearch, num_hits: int) -> tuple[int, str]:
    with pytest.raises(ApiError) as raised:
        writer.submit(asked, [[HIT] * num_hits])
    return raised.value.status, raised.value.code


def test_the_first_hits_of_each_query_have_snippets(writer: SearchWriter) -> None:
    for num_queries, expected in ((1, 100), (3, 33), (256, 1)):
        body = writer.submit(asked(num_queries, has_snippets=True), [[HIT] * 120] * num_queries)
        results = json.loads(body.result(30))["results"]
        counts = {sum("snippet" in hit for hit in each["hits"]) for each in results}
        assert counts == {expected}
        assert {len(each["hits"]) for each in results} == {120}
        assert "title_snippet" in results[0]["hits"][0]


def test_texts_that_are_too_long_together_are_refused(
    writer: SearchWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_writer, "MAX_RESPONSE_CHARACTERS", 3 * CHARACTERS)
    assert writer.submit(asked(), [[HIT] * 3]).result(30)
    assert refusal(writer, asked(), 4) == (400, "response_too_large")


def test_what_waits_is_bounded_until_it_is_written(
    writer: SearchWriter, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_writer, "MAX_WAITING_CHARACTERS", 10 * CHARACTERS)
    monkeypatch.setattr(search_writer, "MAX_WAITING_SNIPPETS", 3)
    futures = [writer.submit(asked(has_snippets=True), [[HIT]]) for _ in range(3)]
    assert refusal(writer, asked(has_snippets=True), 1) == (429, "queue_full")
    futures.append(writer.submit(asked(), [[HIT] * 7]))
    assert refusal(writer, asked(), 1) == (429, "queue_full")
    assert futures[-1].cancel()
    assert refusal(writer, asked(), 1) == (429, "queue_full")  # it still has its memory
    gate.set()
    for future in futures[:-1]:
        assert future.result(30)
    writer.submit(asked(), [[]]).result(30)  # after the one that was left out
    assert writer.submit(asked(has_snippets=True), [[HIT] * 10]).result(30)


def test_the_end_fails_what_waits(writer: SearchWriter, gate: threading.Event) -> None:
    futures = [writer.submit(asked(), [[HIT]]) for _ in range(NUM_THREADS + 1)]
    writer.close()
    assert refusal(writer, asked(), 1)[0] == 503
    gate.set()
    assert [future.exception(30) for future in futures[:-1]] == [None] * NUM_THREADS
    assert isinstance(futures[-1].exception(30), ApiError)


def test_documents_are_answered_while_responses_wait(gate: threading.Event) -> None:
    with served(searchable=InMemorySearch([DOCUMENT])) as server, ThreadPoolExecutor(40) as pool:
        answers = [pool.submit(server.client.get, "/search?q=a&snippets=true") for _ in range(40)]
        try:
            assert server.client.get("/documents/a", timeout=10).status_code == 200
        finally:
            gate.set()
        assert {answer.result(30).status_code for answer in answers} == {200}
