"""Count what the server does, in Prometheus's format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from quarry.types import Role

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class ServerMetrics:
    """The metrics of one server, in a registry of its own.

    Args:
        num_waiting: returns the number of texts that wait.
    """

    def __init__(self, *, num_waiting: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "quarry_requests", "Requests that were answered", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "quarry_request_seconds", "Time from a request's head to the end of its response",
            ["route"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._in_flight = Gauge(
            "quarry_requests_in_flight", "Requests without an answer yet", registry=registry
        )
        self._waiting = Gauge(
            "quarry_waiting_texts", "Texts of requests that wait for embeddings", registry=registry
        )
        self._waiting.set_function(num_waiting)
        self._texts = Counter("quarry_texts", "Texts encoded", ["role"], registry=registry)
        self._tokens = Counter("quarry_tokens", "Tokens encoded", ["role"], registry=registry)
        self._batch_seconds = Histogram(
            "quarry_batch_seconds", "Time of a batch", buckets=_SECONDS, registry=registry
        )
        self._batch_tokens = Histogram(
            "quarry_batch_tokens", "Tokens of a batch", buckets=_TOKENS, registry=registry
        )
        self._batch_texts = Histogram(
            "quarry_batch_texts", "Texts of a batch", buckets=_TEXTS, registry=registry
        )

    def batch(self, role: Role, *, num_texts: int, num_tokens: int, seconds: float) -> None:
        """Count a batch, see `BatchObserver`."""
        self._texts.labels(role).inc(num_texts)
        self._tokens.labels(role).inc(num_tokens)
        self._batch_seconds.observe(seconds)
        self._batch_tokens.observe(num_tokens)
        self._batch_texts.observe(num_texts)

    def begin(self) -> None:
        """Count a request that has begun."""
        self._in_flight.inc()

    def end(self, route: str, *, status: int, seconds: float) -> None:
        """Count a request that has ended.

        Args:
            route: one of few.
            status: of the response; 499: the client has left.
        """
        self._in_flight.dec()
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def page(self) -> bytes:
        """Return all values as text."""
        return generate_latest(self._registry)
