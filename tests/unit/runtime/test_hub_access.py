"""Without a network the hub's library is told so at once, and only then."""

from __future__ import annotations

import socket

import pytest
from huggingface_hub import constants

from quarry.runtime.hub_access import PROXIES, settle_offline


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def test_a_host_that_does_not_answer_turns_to_the_cache(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        settle_offline(timeout_s=1)
    assert constants.HF_HUB_OFFLINE
    assert "only what is in its cache is used" in caplog.text


def test_a_host_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        settle_offline(timeout_s=1)
    assert not constants.HF_HUB_OFFLINE


def test_behind_a_proxy_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    settle_offline(timeout_s=1)
    assert not constants.HF_HUB_OFFLINE
