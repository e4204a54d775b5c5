"""End the connections of clients that are too slow, and refuse malformed requests as JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from quarry.serving.api_errors import ApiError


def bounded_protocol(timeout_s: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with a bound of time.

    Args:
        timeout_s: for the head of a request, from the connection or its first byte on; for what
            follows an answered request's head; and for reading a piece of a response.
    """

    class BoundedProtocol(H11Protocol):
        """A connection that ends when its client is too slow."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._limit()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unlimit()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                if not self.transport.is_closing():
                    self._limit()
            elif not self.flow.write_paused:
                self._unlimit()

        def on_response_complete(self) -> None:
            if not self.flow.write_paused:  # else the client still has to read
                self._unlimit()
            super().on_response_complete()

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            self._limit()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unlimit()
            self._limit()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._unlimit()

        def send_400_response(self, msg: str) -> None:
            problem = "it is no HTTP/1.1, or its head is longer than 64 KiB"
            error = ApiError(
                400,
                f"The request cannot be read: {problem}. Fix: send long queries with POST.",
                code="malformed_request",
            )
            body = error.body()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            response = h11.Response(status_code=400, headers=headers, reason=STATUS_PHRASES[400])
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
            self.transport.close()

        def _limit(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(timeout_s, self._end)

        def _unlimit(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _end(self) -> None:
            self._timer = None
            self.transport.abort()

    found: Any = BoundedProtocol
    return found  # type: ignore[no-any-return]
