"""What task=serve refuses before it loads a model, and what it hides."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from quarry.config.composing import composed_job
from quarry.errors import UserError
from quarry.runtime.secret_values import without_secrets
from quarry.tasks.serve import check_address

pytest.importorskip("fastapi", reason="FastAPI is not installed")
TINY = ("task=serve", "model=qwen-tiny")


def refusal(*overrides: str) -> str:
    """Return the message with which the command is refused."""
    from hydra.utils import instantiate

    with composed_job("eval", [*TINY, *overrides]) as config, pytest.raises(UserError) as error:
        instantiate(config.task)(config)
    return str(error.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "a.example", ""])
def test_listening_elsewhere_needs_a_token(host: str) -> None:
    with pytest.raises(UserError, match=r"task\.host=.*Fix: task\.token="):
        check_address(host, None)
    check_address(host, "a-token-of-tests")


@pytest.mark.parametrize(
    "token", ["", "short", "with a blank", "l\u00e4ngeres-token", "line\nbreak-"]
)
def test_a_token_that_cannot_be_sent_or_is_guessed_is_refused(token: str) -> None:
    with pytest.raises(UserError, match=r"task\.token: has \d+ characters") as error:
        check_address("127.0.0.1", token)
    assert not token or token not in str(error.value)


def test_the_token_is_hidden() -> None:
    check_address("127.0.0.1", "a-token-of-tests")
    assert "a-token-of-tests" not in without_secrets("the a-token-of-tests leaks")


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("task.port=70000", r"task\.port=70000: out of range"),
        ("task.port=-1", r"task\.port=-1: out of range"),
        ("task.port=http", r"task\.port='http': .* takes int"),
        ("task.grace_s=-1", r"task\.grace_s=-1: out of range"),
        ("task.client_timeout_s=0", r"task\.client_timeout_s=0: out of range"),
        ("task.max_body_mib=0", r"task\.max_body_mib=0: out of range"),
        ("task.max_waiting_texts=5", r"task\.max_texts_per_request=2048: more than may wait"),
        ("benchmark=folder", r"benchmark has no effect on task=serve"),
        ("task.host=0.0.0.0", r"task\.host=0\.0\.0\.0: .*task\.token"),
        ("task.index=/nowhere", r"task\.index=/nowhere: no such folder"),
    ],
)
def test_a_wrong_value_is_named(override: str, what: str) -> None:
    import re

    assert re.search(what, refusal(override, "task.port=0") if "port" not in override
                     else refusal(override))  # fmt: skip


def test_numbers_are_checked_with_an_index_too() -> None:
    assert "task.port=70000: out of range" in refusal("task.index=DIR", "task.port=70000")


def test_a_port_in_use_is_told_before_a_model_loads() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        assert f"task.port={port}: another process listens there" in refusal(f"task.port={port}")
