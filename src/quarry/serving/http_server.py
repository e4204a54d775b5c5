"""Run the web server, and end it without breaking off what it has begun."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from quarry.runtime.interruption import SIGNALS
from quarry.serving.door import Door
from quarry.serving.listening import BACKLOG
from quarry.serving.slow_clients import bounded_protocol

logger = logging.getLogger(__name__)

KEEP_ALIVE_S = 30
"""How long a connection without a request stays open."""

LAST_S = 1
"""For responses that are being sent when all else has ended, or was given up."""

MAX_HEAD_BYTES = 65_536


class HttpServer:
    """uvicorn behind a `Door`, with an end of its own.

    SIGTERM, Ctrl-C or `stop` begin the end: new requests get 503, those inside finish within
    `grace_s`, what then still waits fails with 503, and `run` returns. A second signal does not
    wait.

    Args:
        door: the application.
        listener: a socket that listens.
        client_timeout_s: see `Limits`.
        grace_s: for the requests inside at the end.
        give_up: fails all that waits for the model.
    """

    def __init__(
        self,
        door: Door,
        *,
        listener: socket.socket,
        client_timeout_s: float,
        grace_s: float,
        give_up: Callable[[], None],
    ) -> None:
        self._door = door
        self._listener = listener
        self._grace_s = grace_s
        self._give_up = give_up
        self._end: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_ready = threading.Event()
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        config: Any = uvicorn.Config(
            door,
            http=bounded_protocol(client_timeout_s),
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[("x-content-type-options", "nosniff"), ("cache-control", "no-store")],
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=LAST_S,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        self._server = _Server(config)

    def run(self) -> None:
        """Serve until the end, in this thread."""
        with _restored_handlers():
            asyncio.run(self._serve())

    def stop(self) -> None:
        """Begin the end, from another thread; nothing once it has ended."""
        self._is_ready.wait()
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._begin_end)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._loop.add_signal_handler(number, self._begin_end)
        self._is_ready.set()
        await self._server.serve(sockets=[self._listener])

    def _begin_end(self) -> None:
        if self._end is None:
            self._end = asyncio.ensure_future(self._drain())
        else:
            self._give_up()
            self._server.force_exit = self._server.should_exit = True

    async def _drain(self) -> None:
        if not await self._door.drain(timeout_s=self._grace_s):
            logger.warning(
                "Requests did not end within task.grace_s=%g; they get 503", self._grace_s
            )
            self._give_up()
            await self._door.drain(timeout_s=LAST_S)
        self._server.should_exit = True


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: `HttpServer` has them."""
        yield


@contextmanager
def _restored_handlers() -> Iterator[None]:
    """Set the handlers of signals as they were; asyncio would set Python's own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
