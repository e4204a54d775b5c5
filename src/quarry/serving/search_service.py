"""Search an index for many clients: queries that wait are searched together."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from quarry.errors import UserError
from quarry.serving.api_errors import ApiError, stopping
from quarry.serving.limits import MAX_HITS, MAX_QUERIES, MAX_WAITING_QUERIES
from quarry.types import Document

logger = logging.getLogger(__name__)


class FoundDocument(Protocol):
    """A document with its score."""

    @property
    def document(self) -> Document: ...

    @property
    def score(self) -> float: ...


class ServedIndex(Protocol):
    """What a server searches, such as an index with its model."""

    @property
    def num_documents(self) -> int: ...

    @property
    def has_hybrid(self) -> bool:
        """Whether `hybrid` fuses the ranking with BM25's."""
        ...

    def search(
        self, texts: Sequence[str], *, top_k: int, hybrid: bool
    ) -> Sequence[Sequence[FoundDocument]]:
        """Return the best documents of each query, best first."""
        ...

    def document(self, document_id: str) -> Document | None:
        """Return a document by its id; None: there is none."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class _Search:
    texts: Sequence[str]
    top_k: int
    is_hybrid: bool
    future: Future[Sequence[Sequence[FoundDocument]]] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[int, bool]:
        return self.top_k, self.is_hybrid


class SearchService:
    """The one thread that searches, and the bounded queue before it.

    Queries of the same kind that wait are one call: an index on disk is read once for them.

    Args:
        searchable: no other thread searches it.
    """

    def __init__(self, searchable: ServedIndex) -> None:
        self.searchable = searchable
        self._queue: deque[_Search] = deque()
        self._changed = threading.Condition()
        self._num_waiting = 0
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="search", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the search's thread runs."""
        return self._thread.is_alive()

    def submit(
        self, texts: Sequence[str], *, top_k: int, is_hybrid: bool
    ) -> Future[Sequence[Sequence[FoundDocument]]]:
        """Queue the queries of a request, at least one; cancelling the future takes them out.

        Raises:
            ApiError: 429, too many queries wait; 503, the server stops.
        """
        search = _Search(texts=texts, top_k=top_k, is_hybrid=is_hybrid)
        with self._changed:
            if self._is_closing or not self.is_alive:
                raise stopping()
            if self._num_waiting + len(texts) > MAX_WAITING_QUERIES:
                raise ApiError(
                    429,
                    f"{self._num_waiting} queries wait (at most {MAX_WAITING_QUERIES}). Fix: send "
                    "the request again after the time in Retry-After.",
                    code="queue_full",
                    retry_after_s=1,
                )
            self._num_waiting += len(texts)
            self._queue.append(search)
            search.future.add_done_callback(lambda _: self._leave(search))
            self._changed.notify()
        return search.future

    def close(self, *, timeout_s: float) -> None:
        """Refuse new queries, fail those that wait, and end the thread after its search."""
        self._refuse()
        self._thread.join(timeout_s)

    def _refuse(self) -> None:
        with self._changed:
            self._is_closing = True
            for search in list(self._queue):
                _fail(search, stopping())
            self._changed.notify()

    def _leave(self, search: _Search) -> None:
        with self._changed:
            self._num_waiting -= len(search.texts)
            with suppress(ValueError):
                self._queue.remove(search)

    def _run(self) -> None:
        try:
            while searches := self._next():
                self._answer(searches)
        finally:
            self._refuse()

    def _next(self) -> list[_Search]:
        """Wait for queries, and take those of the first one's kind; none: the end."""
        with self._changed:
            while not self._queue and not self._is_closing:
                self._changed.wait()
            if self._is_closing:
                return []
            taken = [self._queue.popleft()]
            num_queries = len(taken[0].texts)
            most = min(MAX_QUERIES, MAX_HITS // taken[0].top_k)
            for search in list(self._queue):
                if search.kind == taken[0].kind and num_queries + len(search.texts) <= most:
                    self._queue.remove(search)
                    taken.append(search)
                    num_queries += len(search.texts)
            return taken

    def _answer(self, searches: Sequence[_Search]) -> None:
        top_k, is_hybrid = searches[0].kind
        texts = [text for search in searches for text in search.texts]
        try:
            found = self.searchable.search(texts, top_k=top_k, hybrid=is_hybrid)
        except Exception as error:  # noqa: BLE001 (one request must not end the server)
            if len(searches) > 1:  # it may be one client's query
                for search in searches:
                    self._answer([search])
                return
            _fail(searches[0], _shown(error))
            return
        start = 0
        for search in searches:
            end = start + len(search.texts)
            with suppress(InvalidStateError):  # the client has left
                search.future.set_result(found[start:end])
            start = end


def _fail(search: _Search, error: Exception) -> None:
    with suppress(InvalidStateError):
        search.future.set_exception(error)


def _shown(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UserError):
        return ApiError(400, str(error), code="cannot_be_searched", param="query")
    logger.error("The search failed", exc_info=error)
    return ApiError(500, "The search failed; the server's log says why.", code="search_failed")
