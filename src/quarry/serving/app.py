"""Build the web application: embeddings as in OpenAI's API, search, documents, health, the page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from quarry.serving.api_errors import ApiError
from quarry.serving.batching import Batcher
from quarry.serving.door import CLIENT_LEFT
from quarry.serving.embeddings_route import read_request, response_body
from quarry.serving.json_body import Bodies
from quarry.serving.limits import Limits
from quarry.serving.page import page, page_headers
from quarry.serving.search_route import AskedSearch, read_search, read_search_query
from quarry.serving.search_service import FoundDocument, SearchService
from quarry.serving.search_writer import SearchWriter
from quarry.serving.served_model import ServedModel
from quarry.serving.server_metrics import ServerMetrics
from quarry.types import Document

NUM_BYTES_PER_PIECE = 262_144
"""Of a response: a client has `Limits.client_timeout_s` to read each piece."""

NUM_NUMBERS_AT_ONCE = 32_768
"""Numbers that are written as text in the event loop; more are written in a thread."""

Result = TypeVar("Result")


class PiecewiseResponse(Response):
    """A response whose long body is sent in pieces."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send(start | {"headers": self.raw_headers})
        body = bytes(self.body)
        for place in range(0, max(len(body), 1), NUM_BYTES_PER_PIECE):
            end = place + NUM_BYTES_PER_PIECE
            more = {"body": body[place:end], "more_body": end < len(body)}
            await send({"type": "http.response.body"} | more)


class Routes:
    """The answers to requests.

    Args:
        model: as clients see it.
        batcher: encodes.
        search: of the index; None: the server has none.
        writer: writes what the search has found.
        metrics: for `/metrics`.
        limits: of requests.
    """

    def __init__(
        self,
        *,
        model: ServedModel,
        batcher: Batcher,
        search: SearchService | None,
        writer: SearchWriter,
        metrics: ServerMetrics,
        limits: Limits,
    ) -> None:
        self._model = model
        self._batcher = batcher
        self._search = search
        self._writer = writer
        self._metrics = metrics
        self._limits = limits
        self._bodies = Bodies(limits)

    async def embeddings(self, request: Request) -> Response:
        """Answer `POST /v1/embeddings`."""
        async with self._bodies.body(request) as body:
            asked = read_request(body, model=self._model, limits=self._limits)
            encoded = await _answer(request, self._batcher.submit(asked.items, asked.role))
        if asked.is_base64 or encoded.vectors.size <= NUM_NUMBERS_AT_ONCE:
            content = response_body(encoded, asked, model=self._model)
        else:
            content = await asyncio.to_thread(response_body, encoded, asked, model=self._model)
        return _json(content)

    async def models(self) -> Response:
        """Answer `GET /v1/models`."""
        return _json({"object": "list", "data": [self._model.as_data()]})

    async def one_model(self, name: str) -> Response:
        """Answer `GET /v1/models/NAME`."""
        self._model.check_name(name)
        return _json(self._model.as_data())

    async def search(self, request: Request) -> Response:
        """Answer `POST /search`."""
        async with self._bodies.body(request) as body:
            return await self._found(request, read_search(body, limits=self._limits))

    async def search_by_link(self, request: Request) -> Response:
        """Answer `GET /search?q=...`."""
        items = request.query_params.multi_items()
        return await self._found(request, read_search_query(items, limits=self._limits))

    async def _found(self, request: Request, asked: AskedSearch) -> Response:
        service = self._index()
        if asked.is_hybrid and not service.searchable.has_hybrid:
            raise ApiError(
                400,
                "hybrid=true: this index has no BM25. Fix: leave it out, or serve an index that "
                "has.",
                code="no_hybrid",
                param="hybrid",
            )
        future = service.submit(asked.texts, top_k=asked.top_k, is_hybrid=asked.is_hybrid)
        found: Sequence[Sequence[FoundDocument]] = await _answer(request, future)
        body: bytes = await _answer(request, self._writer.submit(asked, found))
        return _json(body)

    async def document(self, document_id: str) -> Response:
        """Answer `GET /documents/ID`."""
        found: Document | None = await asyncio.to_thread(
            self._index().searchable.document, document_id
        )
        if found is None:
            raise ApiError(
                404,
                f"document_id={document_id[:80]}: the index has no such document. Fix: an id "
                "that a search has found",
                code="document_not_found",
                param="document_id",
            )
        names = ("document_id", "title", "text")
        return _json({name: getattr(found, name) for name in names})

    async def health(self) -> Response:
        """Answer `GET /health`: 503 once a thread has failed."""
        is_well = self._batcher.is_alive and (self._search is None or self._search.is_alive)
        content: dict[str, Any] = {
            "status": "ok" if is_well else "failed",
            "model": self._model.name,
            "num_documents": None,
            "has_hybrid": False,
            "waiting_texts": self._batcher.num_waiting,
        }
        if self._search is not None:
            content["num_documents"] = self._search.searchable.num_documents
            content["has_hybrid"] = self._search.searchable.has_hybrid
        return _json(content, status=200 if is_well else 503)

    async def metrics(self) -> Response:
        """Answer `GET /metrics`."""
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self) -> Response:
        """Answer `GET /` with the search page."""
        return Response(page(), media_type="text/html", headers=dict(page_headers()))

    def _index(self) -> SearchService:
        if self._search is None:
            raise ApiError(
                404,
                "This server has no index. Fix: start it with task.index=DIR, which task=index "
                "makes.",
                code="no_index",
            )
        return self._search


def build_app(routes: Routes) -> FastAPI:
    """Return the application; errors have the form of OpenAI's API."""
    # no pages of FastAPI's own: they load scripts from elsewhere
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for path, answer, method in (
        ("/v1/embeddings", routes.embeddings, "POST"),
        ("/v1/models", routes.models, "GET"),
        ("/v1/models/{name:path}", routes.one_model, "GET"),
        ("/search", routes.search, "POST"),
        ("/search", routes.search_by_link, "GET"),
        ("/documents/{document_id:path}", routes.document, "GET"),
        ("/health", routes.health, "GET"),
        ("/metrics", routes.metrics, "GET"),
        ("/", routes.page, "GET"),
    ):
        app.add_api_route(path, answer, methods=[method], response_model=None)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_left)
    app.add_exception_handler(Exception, _failure)
    app.add_exception_handler(ApiError, _api_error)
    return app


async def _answer(request: Request, future: Future[Result]) -> Result:
    """Wait for a result; if the client leaves before, cancel the work.

    Raises:
        ClientDisconnect: the client has left.
    """
    result = asyncio.wrap_future(future)
    leaving = asyncio.ensure_future(_left(request))
    try:
        both: list[asyncio.Future[Any]] = [result, leaving]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        return await result
    finally:
        leaving.cancel()
        result.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(content: object, *, status: int = 200) -> Response:
    body = content if isinstance(content, bytes) else json.dumps(content, allow_nan=False).encode()
    return PiecewiseResponse(body, status_code=status, media_type="application/json")


def _of_error(error: ApiError) -> Response:
    return Response(
        error.body(), error.status, headers=error.headers(), media_type="application/json"
    )


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _of_error(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:80]}: {HTTPStatus(error.status_code).phrase}"
    paths = "/v1/embeddings, /v1/models, /search, /documents/ID, /health, /metrics"
    answer = _of_error(
        ApiError(error.status_code, f"{what} (there are {paths}).", code="no_such_route")
    )
    answer.headers.update(error.headers or {})
    return answer


async def _client_left(_: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)


async def _failure(_: Request, error: Exception) -> Response:
    """Answer after a program error, which the server logs."""
    message = "The server has failed on this request; its log says why."
    return _of_error(ApiError(500, message, code="internal_error"))
