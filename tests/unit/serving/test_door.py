"""Who is let in: by token elsewhere, and on loopback no other site."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.served import Served, served

TOKEN = "a-secret-of-tests"


@pytest.fixture(scope="module")
def locked() -> Iterator[Served]:
    with served(token=TOKEN) as found:
        yield found


@pytest.fixture(scope="module")
def unlocked() -> Iterator[Served]:
    with served() as found:
        yield found


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401), ("", 401), (f"Bearer {TOKEN}", 200), (f"bearer {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401), (f"Bearer {TOKEN[:-1]}", 401), ("Bearer", 401),
        (TOKEN, 401), (f"Basic {TOKEN}", 401), ("Bearer \u00e9", 401),
    ],
)  # fmt: skip
def test_the_token_opens(locked: Served, header: str | None, status: int) -> None:
    headers = {} if header is None else {b"authorization": header.encode("utf-8")}
    for path in ("/v1/models", "/metrics", "/nothing"):
        answer = locked.client.get(path, headers=headers)
        expected = 404 if status == 200 and path == "/nothing" else status
        assert answer.status_code == expected
        if status == 401:
            assert answer.json()["error"]["type"] == "authentication_error"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in answer.text


def test_the_page_and_the_health_need_no_token(locked: Served) -> None:
    assert locked.client.get("/").status_code == 200
    assert locked.client.get("/health").status_code == 200
    assert locked.client.post("/v1/embeddings", json={"input": "a"}).status_code == 401


def test_a_token_makes_other_hosts_and_origins_welcome(locked: Served) -> None:
    headers = {
        "authorization": f"Bearer {TOKEN}",
        "host": "a.example",
        "origin": "https://b.example",
    }
    answer = locked.client.get("/v1/models", headers=headers)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8000", 200), ("127.0.0.1:1", 200), ("127.1.2.3", 200),
        ("[::1]:80", 200), ("a.example", 403), ("127.0.0.1.a.example", 403), ("localhost.", 403),
        ("10.0.0.1", 403), ("[::2]", 403), ("localhost@a.example", 403),
    ],
)  # fmt: skip
def test_other_names_of_loopback_are_refused(unlocked: Served, host: str, status: int) -> None:
    for path in ("/", "/health", "/v1/models"):
        assert unlocked.client.get(path, headers={"host": host}).status_code == status


def test_pages_of_other_sites_are_refused(unlocked: Served) -> None:
    own = f"http://127.0.0.1:{unlocked.port}"

    def status(path: str = "/v1/models", **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return unlocked.client.get(path, headers=named).status_code

    assert status(origin=own) == 200
    assert status(sec_fetch_site="same-origin") == 200
    assert status(sec_fetch_site="none") == 200
    bad = ("http://[abc", "http://[::1", "http://a]", "//")
    for origin in ("https://a.example", "null", "http://127.0.0.1:1", f"{own}.a.example", *bad):
        assert status(origin=origin) == 403
    assert status(sec_fetch_site="cross-site") == 403
    assert status(sec_fetch_site="same-site") == 403
    assert status("/", sec_fetch_site="cross-site") == 200  # a link leads to the page
    answer = unlocked.client.options("/v1/embeddings", headers={"origin": "https://a.example"})
    assert answer.status_code == 403
