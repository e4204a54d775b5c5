"""Connections: slow clients, clients that leave, many of them, and the end of the server."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from helpers.served import Gate, InMemorySearch, Served, letter_encoder, served

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"


def request_bytes(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def connected(server: Served) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.settimeout(30)
    return connection


def received(connection: socket.socket) -> bytes:
    """Return all bytes until the server closes."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def until(condition: object, *, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_clients_that_send_slowly_are_ended() -> None:
    with served(client_timeout_s=0.5) as server:
        silent, half_head, half_body = connected(server), connected(server), connected(server)
        kept = connected(server)
        half_head.sendall(HEAD)
        half_body.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        kept.sendall(request_bytes(b'{"input": "a"}'))
        assert kept.recv(100_000).startswith(b"HTTP/1.1 200")
        kept.sendall(HEAD)
        assert received(silent) == b""
        assert received(half_head) == b""
        answer = received(half_body)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"code": "timeout"' in answer
        assert not received(kept).startswith(b"HTTP/1.1 2")
        assert server.embed(input="a").status_code == 200


def test_a_client_that_does_not_read_is_ended() -> None:
    num_texts = 20_000  # whose response exceeds the kernel's buffers
    bounds = {"max_texts_per_request": num_texts, "max_waiting_texts": num_texts}
    encoder = letter_encoder(max_tokens_per_batch=4000)
    with served(encoder=encoder, client_timeout_s=0.5, **bounds) as server:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.settimeout(30)
        connection.sendall(request_bytes(json.dumps({"input": ["a"] * num_texts}).encode()))
        connection.recv(1000)

        def in_flight() -> str:
            lines = server.client.get("/metrics").text.splitlines()
            return next(line for line in lines if line.startswith("quarry_requests_in_flight"))

        until(lambda: in_flight().endswith(" 1.0"))  # the question itself
        assert not received(connection).endswith(b"}")


def test_texts_of_a_client_that_leaves_are_not_encoded() -> None:
    encoder = letter_encoder(max_tokens_per_batch=64)
    gate = Gate(encoder)
    with served(encoder=encoder) as server:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(server.embed, input="x")
            assert gate.arrived.wait(30)
            leaving = connected(server)
            leaving.sendall(request_bytes(json.dumps({"input": ["abcde"] * 60}).encode()))

            def waiting() -> int:
                answer = httpx.get(f"{server.url}/health", trust_env=False)
                return int(answer.json()["waiting_texts"])

            until(lambda: waiting() == 61)
            leaving.close()
            until(lambda: waiting() == 1)
            gate.open()
            assert first.result(30).status_code == 200
        lines = server.client.get("/metrics").text
        assert 'quarry_requests_total{route="/v1/embeddings",status="499"} 1.0' in lines
    assert len(gate.batches) == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300,
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["nonsense", "hosts", "TLS", "length", "chunk"],
)
def test_what_is_no_http_gets_a_json_error(sent: bytes) -> None:
    with served() as server:
        connection = connected(server)
        connection.sendall(sent)
        answer = received(connection)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert "POST" in json.loads(body)["error"]["message"]
        assert server.embed(input="a").status_code == 200


def test_a_link_of_100_kb_is_refused() -> None:
    with served(searchable=InMemorySearch([])) as server:
        connection = connected(server)
        link = b"/search?q=" + b"a" * 102_400
        connection.sendall(
            b"GET " + link + b" HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n"
        )
        head, _, body = received(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert json.loads(body)["error"]["code"] in ("text_too_long", "malformed_request")
        assert server.client.get("/search?q=a").status_code == 200


def test_requests_in_a_row_on_one_connection_are_answered_in_order() -> None:
    with served() as server:
        connection = connected(server)
        bodies = [b'{"input": "a"}', b'{"input": 5}', b'{"input": "b"}']
        connection.sendall(b"".join(map(request_bytes, bodies)) + b"GET /nope HTTP/1.1\r\n"
                           b"Host: localhost\r\nConnection: close\r\n\r\n")  # fmt: skip
        statuses = [part[:3] for part in received(connection).split(b"HTTP/1.1 ")[1:]]
        assert statuses == [b"200", b"400", b"200", b"404"]


def test_at_the_end_what_has_begun_finishes_and_what_comes_gets_503() -> None:
    encoder = letter_encoder()
    gate = Gate(encoder)
    with served(encoder=encoder, grace_s=30) as server, ThreadPoolExecutor(1) as pool:
        begun = pool.submit(server.embed, input="abc")
        assert gate.arrived.wait(30)
        server.server.stop()

        def refused() -> bool:
            with httpx.Client(base_url=server.url, trust_env=False) as client:
                return client.get("/health").status_code == 503

        until(refused)
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            answer = client.post("/v1/embeddings", json={"input": "late"})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "stopping"
        assert answer.headers["retry-after"]
        gate.open()
        assert begun.result(30).status_code == 200
        server.thread.join(30)
        assert not server.thread.is_alive()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health", trust_env=False)


def test_what_does_not_finish_within_the_grace_gets_503() -> None:
    encoder = letter_encoder()
    gate = Gate(encoder)
    with served(encoder=encoder, grace_s=0.3) as server, ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(httpx.post, f"{server.url}/v1/embeddings", json={"input": "abc"},
                             timeout=30, trust_env=False) for _ in range(2)]  # fmt: skip
        assert gate.arrived.wait(30)
        server.server.stop()
        for answer in begun:
            assert answer.result(30).status_code == 503
        server.thread.join(10)
        assert not server.thread.is_alive()
        gate.open()


def test_a_second_signal_does_not_wait() -> None:
    encoder = letter_encoder()
    gate = Gate(encoder)
    with served(encoder=encoder, grace_s=60) as server, ThreadPoolExecutor(1) as pool:
        begun = pool.submit(server.embed, input="abc")
        assert gate.arrived.wait(30)
        server.server.stop()
        server.server.stop()
        server.thread.join(10)
        assert not server.thread.is_alive()
        gate.open()
        assert begun.result(30).status_code == 503


def test_good_and_malformed_requests_over_many_connections_at_once() -> None:
    """The load test of bench/serve_load.py in short."""
    counts: dict[int, int] = {}
    lock = threading.Lock()

    def client(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            for turn in range(6):
                if (number + turn) % 3 == 0:
                    answer = client.post("/v1/embeddings", content=b'{"input": [}')
                elif (number + turn) % 3 == 1:
                    answer = client.post("/v1/embeddings", json={"input": ["abc", "d"] * 4})
                else:
                    answer = client.get("/search?q=abc")
                with lock:
                    counts[answer.status_code] = counts.get(answer.status_code, 0) + 1

    with served(max_waiting_texts=64) as server:
        threads = [threading.Thread(target=client, args=[number]) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        health = server.client.get("/health").json()
        assert (health["status"], health["waiting_texts"]) == ("ok", 0)
    assert sum(counts.values()) == 192
    assert set(counts) <= {200, 400, 404, 429}
    assert counts[400] == counts[404] == 64
