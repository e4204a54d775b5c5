"""Send many HTTP requests over many connections, with little work of the client's own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and the seconds from the request's first byte to the response's last."""

    status: int
    body: bytes
    seconds: float


def http_request(method: str, path: str, body: bytes = b"", *, headers: bytes = b"") -> bytes:
    """Return a request of HTTP/1.1, with its length."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + headers + b"\r\n" + body


def embeddings_request(texts: Sequence[str], **more: Any) -> bytes:
    """Return a request of /v1/embeddings whose response is base64."""
    content = {"input": list(texts), "encoding_format": "base64"} | more
    return http_request("POST", "/v1/embeddings", json.dumps(content).encode())


async def answered(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> Answer:
    """Send a request and read its response.

    Raises:
        EOFError: the server has closed the connection.
    """
    start = time.perf_counter()
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    return Answer(int(head[9:12]), body, time.perf_counter() - start)


async def send_all(port: int, requests: Sequence[bytes], *, num_connections: int) -> list[Answer]:
    """Return the answers in the order of the requests; a connection takes the next when it is free.

    Raises:
        RuntimeError: a request was refused.
    """
    waiting = iter(enumerate(requests))
    found: list[Answer | None] = [None] * len(requests)

    async def send(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, own: Iterator[tuple[int, bytes]]
    ) -> None:
        for place, request in own:
            found[place] = answer = await answered(reader, writer, request)
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {answer.body[:500]!r}")

    connections = [await _connected(port) for _ in range(num_connections)]
    try:
        await asyncio.gather(*(send(*connection, waiting) for connection in connections))
    finally:
        for _, writer in connections:
            writer.close()
    return [answer for answer in found if answer is not None]


async def send_while(
    port: int, requests: Sequence[bytes], *, load: Sequence[bytes], num_connections: int
) -> list[Answer]:
    """Return the answers to requests on one connection while the load runs on others, again and
    again."""
    repeated = cycle(load)

    async def send_load() -> None:
        reader, writer = await _connected(port)
        try:
            while True:
                await answered(reader, writer, next(repeated))
        finally:
            writer.close()

    tasks = [asyncio.create_task(send_load()) for _ in range(num_connections)]
    try:
        await asyncio.sleep(1)
        return await send_all(port, requests, num_connections=1)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, limit=2**24)
