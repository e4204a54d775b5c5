"""Let requests in: the token, the Host header, other sites, and the end of the server."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quarry.serving.api_errors import ApiError, stopping
from quarry.serving.listening import is_loopback
from quarry.serving.server_metrics import ServerMetrics

logger = logging.getLogger(__name__)

OPEN = ("/", "/health")
"""Paths that need no token: the page asks for it, and probes have none."""

ROUTES = ("/", "/health", "/metrics", "/search", "/v1/embeddings", "/v1/models", "/documents")

CLIENT_LEFT = 499


class Door:
    """The ASGI application around all others.

    Without a token, requests count only from this machine's own programs and from the server's own
    page: a Host header of another name is a site that resolves to loopback (DNS rebinding), and an
    Origin of another place is a page of another site.

    Args:
        app: receives what is let in.
        token: that requests carry, `Authorization: Bearer TOKEN`; None: none is needed.
        metrics: counts requests.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, metrics: ServerMetrics) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._metrics = metrics
        self._is_stopping = False
        self._num_inside = 0
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    async def drain(self, *, timeout_s: float) -> bool:
        """Refuse new requests, and wait for those inside; return whether all have ended."""
        self._is_stopping = True
        try:
            await asyncio.wait_for(self._is_empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        route, started, status = _route_of(scope["path"]), time.perf_counter(), CLIENT_LEFT

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.begin()
        self._num_inside += 1
        self._is_empty.clear()
        try:
            self._check(scope, route)
            await self._app(scope, receive, noting)
        except ApiError as error:
            await send_error(error, noting)
        except Exception:
            if status == CLIENT_LEFT:
                raise  # uvicorn answers and closes
            logger.exception("A request to %s has failed", route)  # the application has answered
        finally:
            self._num_inside -= 1
            if not self._num_inside:
                self._is_empty.set()
            self._metrics.end(route, status=status, seconds=time.perf_counter() - started)

    def _check(self, scope: Scope, route: str) -> None:
        """Raise ApiError where a request is not let in."""
        if self._is_stopping:
            raise stopping()
        headers = dict(scope["headers"])
        if self._token is None:
            _check_own_machine(headers, is_page=route == "/")
        elif route not in OPEN:
            self._check_token(headers)

    def _check_token(self, headers: Mapping[bytes, bytes]) -> None:
        assert self._token is not None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        is_bearer = scheme.lower() == b"bearer"
        if not hmac.compare_digest(given.strip() if is_bearer else b"", self._token):
            what = "is wrong" if is_bearer else "is missing"
            raise ApiError(
                401,
                f"The token {what}. Fix: the header Authorization: Bearer TOKEN (task.token).",
                code="invalid_api_key",
            )


def _check_own_machine(headers: Mapping[bytes, bytes], *, is_page: bool) -> None:
    host = headers.get(b"host", b"").decode("latin-1")
    if not is_loopback(_name_of(host)):
        raise ApiError(
            403,
            f"Host: {host[:80]}: not this machine (localhost, 127.0.0.1, [::1]). Fix: connect to "
            "127.0.0.1, or start with task.token=... where a proxy keeps another name.",
            code="foreign_host",
        )
    origin = headers.get(b"origin", b"").decode("latin-1")
    site = headers.get(b"sec-fetch-site", b"none")
    is_foreign = bool(origin) and _netloc(origin) != host
    is_foreign = is_foreign or site not in (b"none", b"same-origin")
    if is_foreign and not is_page:  # a link of another site may lead to the page
        raise ApiError(
            403,
            f"Origin: {origin[:80] or 'another site'}: pages of other sites are refused. Fix: "
            "start with task.token=..., and send it.",
            code="foreign_origin",
        )


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # half an IPv6 address
        return None


def _name_of(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _route_of(path: str) -> str:
    if path in ROUTES:
        return path
    inside = [route for route in ROUTES[1:] if path.startswith(f"{route}/")]
    return inside[0] if inside else "other"


async def send_error(error: ApiError, send: Send) -> None:
    """Send a refusal as the response."""
    body = error.body()
    headers: dict[str, Any] = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **error.headers(),
    }
    raw = [(name.encode(), str(value).encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
