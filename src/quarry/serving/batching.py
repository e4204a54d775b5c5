"""Encode the texts of many requests together, in batches of the encoder's token budget."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quarry.errors import UserError
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.encoding_plan import PlannedBatch
from quarry.serving.api_errors import ApiError, stopping
from quarry.serving.waiting_request import Encoded, WaitingRequest, WaitingText
from quarry.types import ROLES, Document, Query, Role

logger = logging.getLogger(__name__)

NUM_TURNS_PER_BATCH = 4
"""A request takes at most this part of a batch, then those behind it have theirs."""

NUM_BATCHES_PER_ROLE = 4
"""Batches of one role in a row while texts of the other role wait."""

MAX_RETRY_AFTER_S = 60


class BatchObserver(Protocol):
    """Receives the size of each batch that was encoded."""

    def batch(self, role: Role, *, num_texts: int, num_tokens: int, seconds: float) -> None: ...


class Batcher:
    """The one thread that encodes, and the bounded queue before it.

    A batch holds as many waiting texts of one role as fit `encoder.max_tokens_per_batch`, of any
    requests. Requests take turns within a batch, so a big one does not hold up those behind it.
    Each text's embedding is that of `Encoder.encode`: packed texts do not see each other.

    Args:
        encoder: no other thread uses it.
        max_waiting_texts: see `Limits`.
        observer: receives each batch, in the encoder's thread.
    """

    def __init__(
        self, encoder: Encoder, *, max_waiting_texts: int, observer: BatchObserver | None = None
    ) -> None:
        self._encoder = encoder
        self._max_waiting = max_waiting_texts
        self._observer = observer
        self._queues: dict[Role, deque[WaitingRequest]] = {role: deque() for role in ROLES}
        self._changed = threading.Condition()
        self._num_waiting = 0
        self._is_closing = False
        self._texts_per_s = 0.0
        self._last_role: Role = "document"
        self._num_batches = 0
        self._on_the_way: dict[int, list[WaitingText]] = {}
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Number of texts in requests that have no answer yet."""
        return self._num_waiting

    @property
    def is_alive(self) -> bool:
        """Whether the encoder's thread runs."""
        return self._thread.is_alive()

    def submit(self, items: Sequence[Query | Document], role: Role) -> Future[Encoded]:
        """Queue the texts of a request, at least one; cancelling the future takes them out.

        Raises:
            ApiError: 429, too many texts wait; 503, the server stops.
        """
        request = WaitingRequest(items, role, dim=self._encoder.model.embedding_dim)
        with self._changed:
            if self._is_closing or not self.is_alive:
                raise stopping()
            if self._num_waiting + len(items) > self._max_waiting:
                raise self._too_many()
            self._num_waiting += len(items)
            self._queues[role].append(request)
            request.future.add_done_callback(lambda _: self._leave(request))
            self._changed.notify()
        return request.future

    def close(self, *, timeout_s: float) -> None:
        """Refuse new requests, fail those that wait, and end the thread after its batch."""
        self._refuse()
        self._thread.join(timeout_s)

    def _refuse(self) -> None:
        with self._changed:
            self._is_closing = True
            waiting = [request for queue in self._queues.values() for request in queue]
            waiting += [text.request for texts in self._on_the_way.values() for text in texts]
            for request in waiting:
                request.fail(stopping())
            self._changed.notify()

    def _leave(self, request: WaitingRequest) -> None:
        """Forget a request that has its answer, or whose client has left."""
        with self._changed:
            self._num_waiting -= len(request.items)
            with suppress(ValueError):
                self._queues[request.role].remove(request)

    def _too_many(self) -> ApiError:
        rate = self._texts_per_s
        wait_s = math.ceil(self._num_waiting / rate) if rate else 1
        return ApiError(
            429,
            f"{self._num_waiting} texts wait to be encoded (at most {self._max_waiting}). Fix: "
            "send the request again after the time in Retry-After.",
            code="queue_full",
            retry_after_s=min(max(wait_s, 1), MAX_RETRY_AFTER_S),
        )

    def _run(self) -> None:
        try:
            while (role := self._next_role()) is not None:
                self._encode(role)
        except BaseException:
            logger.exception("The encoder's thread has failed; the server answers 503")
            raise
        finally:
            self._refuse()

    def _next_role(self) -> Role | None:
        """Wait for texts, and return the role to encode: the roles take turns. None: the end."""
        with self._changed:
            while not self._is_closing:
                waiting = [role for role in ROLES if self._queues[role]]
                if waiting:
                    others = [role for role in waiting if role != self._last_role]
                    self._last_role = (others or waiting)[0]
                    return self._last_role
                self._changed.wait()
        return None

    def _encode(self, role: Role) -> None:
        """Encode waiting texts of a role until none wait, or the other role's turn has come."""
        started = time.perf_counter()
        try:
            batches = self._encoder.encode_batches(self._batches(role), role, num_texts=0)
            with closing(batches) as encoded:
                for batch, vectors in encoded:
                    _deliver(self._on_the_way.pop(batch.start), vectors.numpy())
                    now = time.perf_counter()
                    self._observe(role, batch, now - started)
                    started = now
        except Exception as error:  # noqa: BLE001 (one request must not end the server)
            self._try_alone(error)

    def _batches(self, role: Role) -> Iterator[PlannedBatch]:
        other = next(each for each in ROLES if each != role)
        last = self._num_batches + NUM_BATCHES_PER_ROLE
        while self._num_batches < last or not self._queues[other]:
            texts = self._chosen(role)
            if not texts:
                return
            texts.sort(key=lambda text: -len(text.tokens))  # as the encoder plans its own
            self._num_batches += 1
            self._on_the_way[self._num_batches] = texts
            yield PlannedBatch(
                start=self._num_batches,
                rows=np.arange(len(texts)),
                texts=[text.tokens for text in texts],
            )

    def _chosen(self, role: Role) -> list[WaitingText]:
        """Take texts of waiting requests in turns, up to the token budget.

        Requests that have just come have their first turn before those that wait for another one,
        in half of the batch: a few texts do not wait for all big requests, nor these for ever.
        """
        budget = self._encoder.max_tokens_per_batch
        chosen: list[WaitingText] = []
        num_tokens = 0
        while (request := self._first(role, prefers_fresh=num_tokens < budget / 2)) is not None:
            if chosen and (request.is_alone or chosen[0].request.is_alone):
                break
            most = budget if request.is_alone else max(budget // NUM_TURNS_PER_BATCH, 1)
            room = budget - num_tokens
            taken = request.turn(room=room, most=most, is_first=not chosen)
            if not taken:
                break
            chosen += taken
            num_tokens += sum(len(text.tokens) for text in taken)
            with self._changed, suppress(ValueError):  # ValueError: its client has left
                queue = self._queues[role]
                queue.remove(request)
                if not request.is_taken:
                    (queue.appendleft if request.is_alone else queue.append)(request)
        return chosen

    def _first(self, role: Role, *, prefers_fresh: bool) -> WaitingRequest | None:
        """Return the request whose turn it is, with at least one text tokenized."""
        while True:
            with self._changed:
                queue = self._queues[role]
                if not queue:
                    return None
                fits = (each for each in queue if each.is_alone or each.is_fresh == prefers_fresh)
                request = next(fits, queue[0])
            if request.ready:
                return request
            try:
                request.add(self._encoder.tokenizer(request.next_slice(), role))
            except Exception as error:  # noqa: BLE001 (one request must not end the server)
                request.fail(_shown(error, status=400))  # and it leaves the queue

    def _try_alone(self, error: Exception) -> None:
        """After a failure put the requests back, each alone in its batches; one alone fails."""
        texts = [text for batch in self._on_the_way.values() for text in batch]
        self._on_the_way.clear()
        requests = list({id(text.request): text.request for text in texts}.values())
        for text in reversed(texts):
            text.request.ready.appendleft(text)
        for request in reversed(requests):
            if len(requests) == 1 or request.is_alone:
                request.fail(_shown(error, status=500))
                continue
            request.is_alone = True
            with self._changed:
                queue = self._queues[request.role]
                if request not in queue and not request.future.done():
                    queue.appendleft(request)

    def _observe(self, role: Role, batch: PlannedBatch, seconds: float) -> None:
        num_texts = len(batch.texts)
        rate = num_texts / max(seconds, 1e-6)
        self._texts_per_s = rate if not self._texts_per_s else 0.9 * self._texts_per_s + 0.1 * rate
        if self._observer is not None:
            num_tokens = sum(map(len, batch.texts))
            self._observer.batch(role, num_texts=num_texts, num_tokens=num_tokens, seconds=seconds)


def _deliver(texts: Sequence[WaitingText], vectors: NDArray[np.float32]) -> None:
    for (request, place, _), vector in zip(texts, vectors, strict=True):
        request.vectors[place] = vector
        request.num_open -= 1
        if request.num_open == 0:
            request.finish()


def _shown(error: Exception, *, status: int) -> ApiError:
    """Return what the client receives: the message of a user's error, of others none."""
    if isinstance(error, UserError):
        return ApiError(status, str(error), code="cannot_be_encoded", param="input")
    logger.error("Encoding failed", exc_info=error)
    return ApiError(500, "Encoding failed; the server's log says why.", code="encoding_failed")
