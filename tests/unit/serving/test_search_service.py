"""Queries that wait are one search of an index; a failing one is its own client's alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from helpers.served import Found, InMemorySearch
from quarry.errors import UserError
from quarry.serving.api_errors import ApiError
from quarry.serving.search_service import SearchService
from quarry.types import Document

DOCUMENTS = [Document(document_id=name, text=f"{name} word") for name in ("a", "b", "c")]


class HeldSearch(InMemorySearch):
    """Waits in its first call, and refuses the text `bad`."""

    def __init__(self) -> None:
        super().__init__(DOCUMENTS)
        self.begun = threading.Event()
        self.proceeds = threading.Event()

    def search(self, texts: Sequence[str], *, top_k: int, hybrid: bool) -> list[list[Found]]:
        found = super().search(texts, top_k=top_k, hybrid=hybrid)
        self.begun.set()
        assert self.proceeds.wait(30)
        if "bad" in texts:
            raise UserError("a bad text")
        return found


@pytest.fixture
def search() -> HeldSearch:
    return HeldSearch()


@pytest.fixture
def service(search: HeldSearch) -> Iterator[SearchService]:
    made = SearchService(search)
    yield made
    search.proceeds.set()
    made.close(timeout_s=30)
    assert not made.is_alive


def test_waiting_queries_of_a_kind_are_one_call(search: HeldSearch, service: SearchService) -> None:
    first = service.submit(["a"], top_k=1, is_hybrid=False)
    assert search.begun.wait(30)
    waiting = [service.submit([text], top_k=2, is_hybrid=False) for text in ("a", "b")]
    other = service.submit(["c"], top_k=3, is_hybrid=True)
    several = service.submit(["b", "c"], top_k=2, is_hybrid=False)
    left = service.submit(["left"], top_k=2, is_hybrid=False)
    assert left.cancel()
    search.proceeds.set()

    def best(future: object) -> list[str]:
        return [hits[0].document.document_id for hits in future.result(30)]  # type: ignore[attr-defined]

    assert [best(each) for each in (first, *waiting, other, several)] == [
        ["a"], ["a"], ["b"], ["c"], ["b", "c"],
    ]  # fmt: skip
    assert search.calls == [
        (("a",), 1, False), (("a", "b", "b", "c"), 2, False), (("c",), 3, True),
    ]  # fmt: skip


def test_a_query_that_fails_does_not_fail_the_others(
    search: HeldSearch, service: SearchService
) -> None:
    service.submit(["a"], top_k=1, is_hybrid=False)
    assert search.begun.wait(30)
    good, bad = (service.submit([text], top_k=2, is_hybrid=False) for text in ("b", "bad"))
    search.proceeds.set()
    assert good.result(30)[0][0].document.document_id == "b"
    with pytest.raises(ApiError, match="a bad text") as error:
        bad.result(30)
    assert error.value.status == 400


def test_too_many_queries_are_refused_and_the_end_fails_those_that_wait(
    search: HeldSearch, service: SearchService
) -> None:
    service.submit(["a"], top_k=1, is_hybrid=False)
    assert search.begun.wait(30)
    waiting = [service.submit(["a"] * 256, top_k=1, is_hybrid=False) for _ in range(3)]
    with pytest.raises(ApiError, match="769 queries wait") as error:
        service.submit(["a"] * 256, top_k=1, is_hybrid=False)
    assert error.value.status == 429
    service.close(timeout_s=0)
    for future in waiting:
        with pytest.raises(ApiError, match="stopping"):
            future.result(30)
    with pytest.raises(ApiError, match="stopping"):
        service.submit(["a"], top_k=1, is_hybrid=False)


def test_queries_with_many_hits_are_searched_apart(
    search: HeldSearch, service: SearchService
) -> None:
    """The documents of one call are in memory at once."""
    first = service.submit(["a"], top_k=1, is_hybrid=False)
    assert search.begun.wait(30)
    waiting = [service.submit(["b"] * 6, top_k=1000, is_hybrid=False) for _ in range(2)]
    search.proceeds.set()
    for future in (first, *waiting):
        future.result(30)
    assert [len(texts) for texts, _, _ in search.calls] == [1, 6, 6]
