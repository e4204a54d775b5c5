"""Where a server listens: clear refusals, before anything loads."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from quarry.errors import UserError
from quarry.serving.listening import is_loopback, listening_socket, url_of


def test_a_port_in_use_names_the_key_and_another_port() -> None:
    with closing(listening_socket("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(UserError, match=rf"task\.port={port}: .*task\.port={port + 1}"):
            listening_socket("127.0.0.1", port)
    with closing(listening_socket("127.0.0.1", port)) as again:
        assert url_of(again) == f"http://127.0.0.1:{port}"


def test_clients_wait_until_the_server_answers() -> None:
    with (
        closing(listening_socket("localhost", 0)) as listener,
        closing(socket.create_connection(listener.getsockname()[:2], timeout=5)) as client,
    ):
        client.sendall(b"GET")


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host", "a" * 300])
def test_a_host_that_is_not_here_is_refused(host: str) -> None:
    with pytest.raises(UserError, match=r"task\.host=.*Fix: task\.host=127\.0\.0\.1"):
        listening_socket(host, 0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("localhost", True), ("::1", True), ("[::1]", True),
        ("127.9.9.9", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("", False),
        ("localhost.a", False), ("::ffff:10.0.0.1", False),
    ],
)  # fmt: skip
def test_loopback_is_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
