"""Write the responses of searches in threads of their own, and bound what waits for them."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from quarry.serving.api_errors import ApiError, stopping
from quarry.serving.limits import (
    MAX_RESPONSE_CHARACTERS,
    MAX_WAITING_CHARACTERS,
    MAX_WAITING_SNIPPETS,
)
from quarry.serving.search_route import AskedSearch, found_as_data
from quarry.serving.search_service import FoundDocument

NUM_THREADS = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class _Response:
    asked: AskedSearch
    found: Sequence[Sequence[FoundDocument]]
    num_characters: int
    future: Future[bytes] = field(default_factory=Future)


class SearchWriter:
    """The threads that write what was found as JSON; other routes never wait for them.

    Args:
        model: its name, in each response.
    """

    def __init__(self, *, model: str) -> None:
        self._model = model
        self._pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="search-response")
        self._lock = threading.Lock()
        self._num_characters = 0
        self._num_snippets = 0
        self._is_closing = False

    def submit(self, asked: AskedSearch, found: Sequence[Sequence[FoundDocument]]) -> Future[bytes]:
        """Queue a response; cancelling the future leaves it out.

        Raises:
            ApiError: 400, the texts found are too long; 429, too many responses wait; 503, the
                server stops.
        """
        documents = [hit.document for hits in found for hit in hits]
        size = sum(len(document.title) + len(document.text) for document in documents)
        if size > MAX_RESPONSE_CHARACTERS:
            raise ApiError(
                400,
                f"top_k={asked.top_k}: the documents found have {size:,} characters (at most "
                f"{MAX_RESPONSE_CHARACTERS:,} in a response). Fix: a smaller top_k, or fewer "
                "queries in a request.",
                code="response_too_large",
                param="top_k",
            )
        response = _Response(asked=asked, found=found, num_characters=size)
        with self._lock:
            if self._is_closing:
                raise stopping()
            if (
                self._num_characters + size > MAX_WAITING_CHARACTERS
                or self._num_snippets + asked.has_snippets > MAX_WAITING_SNIPPETS
            ):
                raise _too_many()
            self._count(response, 1)
            self._pool.submit(self._write, response)
        return response.future

    def close(self) -> None:
        """Refuse new responses, and fail those that wait."""
        with self._lock:
            self._is_closing = True
        self._pool.shutdown(wait=False)

    def _write(self, response: _Response) -> None:
        future = response.future
        try:
            if not future.set_running_or_notify_cancel():  # the client has left
                return
            if self._is_closing:
                raise stopping()
            content = found_as_data(response.asked, response.found, model=self._model)
            future.set_result(json.dumps(content, allow_nan=False).encode())
        except Exception as error:  # noqa: BLE001 (the request shows it)
            future.set_exception(error)
        finally:
            with self._lock:
                self._count(response, -1)

    def _count(self, response: _Response, sign: int) -> None:
        self._num_characters += sign * response.num_characters
        self._num_snippets += sign * response.asked.has_snippets


def _too_many() -> ApiError:
    return ApiError(
        429,
        "Too many responses wait to be written. Fix: send the request again after the time in "
        "Retry-After.",
        code="queue_full",
        retry_after_s=1,
    )
