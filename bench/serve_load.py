"""Send good and malformed requests over many connections to a server, and see that it stays up.

    python bench/serve_load.py [--num-requests 10000] [--num-connections 256] [KEY=VALUE ...]

A third of the requests are good. The others are malformed in a way each: no JSON, wrong types,
invalid UTF-8, deep nesting, texts and bodies that are too long, unknown models, paths and
documents, half of a request, no HTTP, clients that leave before the answer. Each answer has to have
its status. Memory is that of the server's process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import psutil

from http_load import answered, embeddings_request, http_request
from result_line import hand_over
from serve import MODEL, running_server

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\n"
TIME_LIMIT_S = 120


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request.

    Attributes:
        statuses: that its answer may have.
        leaves: the client closes before the answer.
        closes: the server closes after the answer, or without one.
    """

    name: str
    request: bytes
    statuses: tuple[int, ...]
    leaves: bool = False
    closes: bool = False


def _posted(body: bytes) -> bytes:
    return http_request("POST", "/v1/embeddings", body)


def kinds() -> list[Kind]:
    """Return all kinds, the good ones often enough to be a third."""
    text = "how to read a file"
    good = [
        Kind("one text", embeddings_request([text]), (200,)),
        Kind("a query", embeddings_request([text], input_type="query"), (200,)),
        Kind("16 texts", embeddings_request([text] * 16), (200,)),
        Kind("numbers", _posted(json.dumps({"input": text}).encode()), (200,)),
        Kind("health", http_request("GET", "/health"), (200,)),
    ]
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    bad = [
        Kind("no JSON", _posted(b"{"), (400,)),
        Kind("NaN", _posted(b'{"input": NaN}'), (400,)),
        Kind("wrong type", _posted(b'{"input": {"a": 1}}'), (400,)),
        Kind("token ids", _posted(b'{"input": [[1, 2]]}'), (400,)),
        Kind("empty", _posted(b'{"input": []}'), (400,)),
        Kind("UTF-8", _posted(b'{"input": "\xff"}'), (400,)),
        Kind("nesting", _posted(b"[" * 50_000), (400,)),
        Kind("100 KB", embeddings_request(["a" * 102_400], input_type="query"), (400,)),
        Kind("other model", embeddings_request([text], model="other"), (404,)),
        Kind("path", http_request("GET", "/v1/nothing"), (404,)),
        Kind("document", http_request("GET", "/documents/nothing"), (404,)),
        Kind("method", http_request("DELETE", "/v1/embeddings"), (405,)),
        Kind("other host", b"GET /health HTTP/1.1\r\nHost: a.example\r\n\r\n", (403,)),
        Kind("2 MiB", _posted(b"a" * 2**21), (413,), closes=True),
        Kind(
            "2 MiB chunked",
            chunked + b"".join(b"10000\r\n" + b"a" * 65_536 + b"\r\n" for _ in range(32))
            + b"0\r\n\r\n",
            (413,),
            closes=True,
        ),
        Kind("no HTTP", b"\x16\x03\x01\x02\x00\r\n\r\n", (400,), closes=True),
        Kind("half a body", HEAD + b"Content-Length: 100\r\n\r\n{", (), leaves=True),
        Kind("leaves", embeddings_request([text] * 16), (), leaves=True),
    ]  # fmt: skip
    return good * (len(bad) // len(good) // 2 + 1) + bad


async def send_mixed(port: int, number: int, *, num_connections: int) -> Counter[str]:
    """Send so many requests, and return the number of each kind's answers.

    Raises:
        RuntimeError: an answer has a wrong status.
    """
    mixed = kinds()
    order = np.random.default_rng(0).integers(0, len(mixed), number).tolist()
    places = count()
    found: Counter[str] = Counter()

    async def client() -> None:
        connection = None
        while (place := next(places)) < number:
            kind = mixed[order[place]]
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
            status = await _status(kind, *connection)
            found[status] += 1
            if kind.leaves or kind.closes or status == "429":
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    async with asyncio.timeout(TIME_LIMIT_S * max(1, number // 1000)):
        await asyncio.gather(*(client() for _ in range(num_connections)))
    return found


async def _status(kind: Kind, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    if kind.leaves:
        writer.write(kind.request)
        with suppress(ConnectionError):
            await writer.drain()
        return "left"
    try:
        async with asyncio.timeout(TIME_LIMIT_S):
            answer = await answered(reader, writer, kind.request)
    except (ConnectionError, asyncio.IncompleteReadError):
        if kind.closes:  # before the client has read the answer
            return "closed"
        raise RuntimeError(f"{kind.name}: the server has closed the connection") from None
    if answer.status not in (*kind.statuses, 429):  # 429: others' requests fill the server
        raise RuntimeError(f"{kind.name}: {answer.status} {answer.body[:300]!r}")
    if answer.status >= 400:
        assert json.loads(answer.body)["error"]["message"]
    return str(answer.status)


def memory_mib(pid: int) -> int:
    return round(float(psutil.Process(pid).memory_info().rss) / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-requests", type=int, default=10_000)
    parser.add_argument("--num-connections", type=int, default=256)
    parser.add_argument("--log", type=Path, default=Path("build/serve.log"))
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    arguments.log.parent.mkdir(parents=True, exist_ok=True)
    overrides = [*MODEL, "task.max_body_mib=1", *arguments.overrides]
    with running_server(overrides, core=0, log=arguments.log) as (port, pid):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        run = _Run(port, num_connections=arguments.num_connections)
        run.send(arguments.num_requests // 10)
        before = memory_mib(pid)
        start = time.perf_counter()
        answers = run.send(arguments.num_requests)
        seconds = time.perf_counter() - start
        after = memory_mib(pid)
        health = asyncio.run(run.health())
    hand_over(
        {
            "answers": dict(sorted(answers.items())),
            "seconds": round(seconds, 1),
            "memory_mib_after_a_tenth": before,
            "memory_mib_at_the_end": after,
            "health": health,
        }
    )


class _Run:
    def __init__(self, port: int, *, num_connections: int) -> None:
        self._port = port
        self._num_connections = num_connections

    def send(self, number: int) -> Counter[str]:
        return asyncio.run(send_mixed(self._port, number, num_connections=self._num_connections))

    async def health(self) -> Sequence[object]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        answer = await answered(reader, writer, http_request("GET", "/health"))
        writer.close()
        content = json.loads(answer.body)
        return [content["status"], content["waiting_texts"]]


if __name__ == "__main__":
    main()
