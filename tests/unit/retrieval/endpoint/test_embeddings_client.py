"""What a server answers is taken in its forms, and what is no answer is named with a remedy."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from helpers.stub_endpoint import Answer, Stub, served
from quarry.errors import UserError
from quarry.retrieval.endpoint.embeddings_client import (
    DEFAULT_MODEL,
    EmbeddingsClient,
    RefusedTextsError,
    checked_url,
)
from quarry.types import Role


@pytest.fixture
def stub() -> Iterator[Stub]:
    def embed(text: str, role: Role) -> torch.Tensor:
        return torch.tensor([float(len(text)), 1.5, -2.0 if role == "query" else 2.0])

    with served(Stub(embed=embed)) as stub:
        yield stub


def client_of(stub: Stub, *, token: str | None = None, timeout_s: float = 10) -> EmbeddingsClient:
    return EmbeddingsClient(url=stub.url, token=token, timeout_s=timeout_s)


def asked(stub: Stub, *, token: str | None = None) -> torch.Tensor:
    with client_of(stub, token=token) as client:
        return client.embed(["a", "bcd"], model="mine", role="query")


@pytest.mark.parametrize("is_base64", [False, True])
def test_vectors_in_both_forms_and_in_the_order_of_their_index(stub: Stub, is_base64: bool) -> None:
    stub.is_base64 = is_base64
    assert asked(stub).tolist() == [[1.0, 1.5, -2.0], [3.0, 1.5, -2.0]]
    assert stub.asked == [
        {"model": "mine", "input": ["a", "bcd"], "encoding_format": "float", "input_type": "query"}
    ]


def test_the_only_model_is_taken(stub: Stub) -> None:
    with client_of(stub) as client:
        assert client.only_model() == "mine"
        stub.models = None
        assert client.only_model() == DEFAULT_MODEL
        stub.models = ("one", "two")
        with pytest.raises(
            UserError, match=r"several models \(one, two\).*task\.endpoint_model=one"
        ):
            client.only_model()


def test_a_token_is_sent_and_never_shown(stub: Stub) -> None:
    stub.token = "a-secret-token"
    assert asked(stub, token="a-secret-token").shape == (2, 3)
    with pytest.raises(UserError, match=r"asks for a token \(HTTP 401\).*task\.token_env"):
        asked(stub)
    with pytest.raises(UserError, match="refuses the token") as refused:
        asked(stub, token="another-secret")
    assert "another-secret" not in str(refused.value)
    for wrong in ("with a blank", "line\nbreak", "ümlaut"):
        with pytest.raises(UserError, match=r"task\.token_env: .* no token") as refused:
            client_of(stub, token=wrong)
        assert wrong not in str(refused.value)


def answer(content: object, *, status: int = 200, kind: str = "application/json") -> Answer:
    text = content if isinstance(content, str) else json.dumps(content)
    return status, kind, text.encode()


def vectors(*values: object, **more: Any) -> Answer:
    return answer({"data": [{"embedding": value, **more} for value in values]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (answer("<html>Welcome</html>", kind="text/html"), "answers with a web page .*Welcome"),
        (answer("fine"), "answers with no JSON"),
        (answer(["no", "object"]), "no list of embeddings under `data`"),
        (answer({"data": ["no", "object"]}), "no list of embeddings under `data`"),
        (answer({"error": "out of memory"}, status=500), r"fails \(HTTP 500: .*out of memory"),
        (answer("busy", status=429), r"fails \(HTTP 429: busy"),
        (answer({"error": "no model"}, status=404), r"no model 'mine' \(HTTP 404.*endpoint_model"),
        (answer("", status=301), r"redirects elsewhere \(HTTP 301\)"),
        (vectors([1.0, 2.0]), "1 embeddings for 2 texts"),
        (vectors([1.0], [2.0], index=0), r"the indices \[0, 0\] for 2 texts"),
        (vectors([1.0], [2.0, 3.0]), r"several widths \(1, 2\)"),
        (vectors([1.0], [float("nan")]), r"text 1\) with numbers that are not finite"),
        (vectors([1.0], [1e300]), r"text 1\) with numbers that are not finite"),
        (vectors([0.0], [1.0]), r"text 0\) that is zero"),
        (vectors("AAAA", [1.0]), r"text 0\) that is neither a list of numbers nor base64"),
        (vectors("no base64!", [1.0]), "neither a list of numbers nor base64"),
        (vectors([], [1.0]), "neither a list of numbers nor base64"),
        (vectors(None, [1.0]), "neither a list of numbers nor base64"),
        (vectors(["a"], [1.0]), "neither a list of numbers nor base64"),
        (vectors([[1.0]], [1.0]), "neither a list of numbers nor base64"),
        (vectors([True], [1.0]), "neither a list of numbers nor base64"),
        (vectors([10**400], [1.0]), "neither a list of numbers nor base64|not finite"),
    ],
    ids=str,
)
def test_an_answer_that_is_none(stub: Stub, given: Answer, message: str) -> None:
    stub.answers = lambda body: given
    with pytest.raises(UserError, match=f"^task.endpoint={stub.url}: .*{message}"):
        asked(stub)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_texts_that_are_refused(stub: Stub, status: int) -> None:
    stub.answers = lambda body: answer({"error": "maximum context length"}, status=status)
    with pytest.raises(RefusedTextsError, match="maximum context length"):
        asked(stub)


def test_a_server_that_is_not_there(stub: Stub) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    client = EmbeddingsClient(url=url, token=None, timeout_s=5)
    with client, pytest.raises(UserError, match="cannot be reached .*Fix: start the server"):
        client.only_model()


def test_a_server_that_does_not_answer_in_time(stub: Stub) -> None:
    def slow(body: dict[str, Any]) -> Answer:
        time.sleep(0.5)
        return answer({})

    stub.answers = slow
    message = r"no answer within 0\.1 s\. Fix: task\.timeout_s"
    with client_of(stub, timeout_s=0.1) as client, pytest.raises(UserError, match=message):
        client.embed(["a"], model="mine", role=None)


def test_what_is_no_http(stub: Stub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = EmbeddingsClient(url=url, token=None, timeout_s=0.3)
        with client, pytest.raises(UserError, match="no answer within"):
            client.only_model()


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "", "http://h?x=1"],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UserError, match="no address of a server.*Fix: task.endpoint=http"):
        checked_url(url)


def test_addresses() -> None:
    assert checked_url("http://host:1/v1/") == "http://host:1/v1"
    assert checked_url("https://host/v1/embeddings") == "https://host/v1"
    with pytest.raises(UserError, match="task.token_env") as refused:
        checked_url("http://someone:secret@host/v1")
    assert "secret" not in str(refused.value)
