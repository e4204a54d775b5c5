"""The answers over HTTP: embeddings as OpenAI's clients read them, search, and every bad input."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest

from helpers.served import TEXTS, Gate, InMemorySearch, Served, letter_encoder, served
from quarry.types import Document, Query

DOCUMENTS = [
    Document(document_id="a/1", title="Cats", text="A cat is a small animal"),
    Document(document_id="b", text="Dogs bark <script>alert(1)</script>"),
    Document(document_id="c d", text="no animal at all"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(searchable=InMemorySearch(DOCUMENTS)) as found:
        yield found


def error_of(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert set(content) == {"error"}
    assert set(content["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = content["error"]
    return error


def test_both_formats_hold_the_same_bits_as_the_encoder(server: Served) -> None:
    items = [Document(document_id="", text=text) for text in TEXTS]
    encoder = letter_encoder(max_tokens_per_batch=1000)
    expected = encoder.encode(items, "document").numpy()
    numbers = server.embed(input=list(TEXTS), model="tiny").json()
    coded = server.embed(input=list(TEXTS), encoding_format="base64", user="me").json()
    vectors = np.array([entry["embedding"] for entry in numbers["data"]], dtype=np.float32)
    np.testing.assert_allclose(vectors, expected, atol=1e-6, rtol=0)
    for place, entry in enumerate(coded["data"]):
        assert (entry["object"], entry["index"]) == ("embedding", place)
        decoded = np.frombuffer(base64.b64decode(entry["embedding"]), dtype="<f4")
        np.testing.assert_array_equal(decoded, vectors[place])
    assert (numbers["object"], numbers["model"]) == ("list", "tiny")
    num_tokens = sum(map(len, encoder.tokenizer(items, "document")))
    assert numbers["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


def test_the_input_type_chooses_the_prompt_and_documents_are_the_default(server: Served) -> None:
    encoder = letter_encoder()
    query = encoder.encode([Query(query_id="", text="abc")], "query").numpy()
    document = encoder.encode([Document(document_id="", text="abc")], "document").numpy()
    for kind, expected in [("query", query), ("document", document), ("passage", document)]:
        found = server.embed(input="abc", input_type=kind).json()["data"][0]["embedding"]
        np.testing.assert_allclose(np.float32(found), expected[0], atol=1e-6)
    plain = server.embed(input="abc", dimensions=32).json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.float32(plain), document[0], atol=1e-6)
    assert np.abs(query - document).max() > 1e-2


BAD = [
    ({"input": []}, 400, "empty_input", "input"),
    ({"input": ""}, 400, "empty_text", "input"),
    ({"input": ["a", ""]}, 400, "empty_text", "input[1]"),
    ({}, 400, "invalid_value", "input"),
    ({"input": None}, 400, "invalid_value", "input"),
    ({"input": 5}, 400, "invalid_value", "input"),
    ({"input": {"text": "a"}}, 400, "invalid_value", "input"),
    ({"input": ["a", 5]}, 400, "invalid_value", "input[1]"),
    ({"input": [True]}, 400, "invalid_value", "input[0]"),
    ({"input": [1, 2, 3]}, 400, "token_ids", "input"),
    ({"input": [[1, 2], [3]]}, 400, "token_ids", "input"),
    ({"input": list(range(100))}, 400, "token_ids", "input"),
    ({"input": ["a"] * 65}, 400, "too_many_texts", "input"),
    ({"input": "a" * 2001}, 400, "text_too_long", "input"),
    ({"input": "a" * 102_400, "input_type": "query"}, 400, "text_too_long", "input"),
    ({"input": "a", "model": "gpt"}, 404, "model_not_found", "model"),
    ({"input": "a", "model": 5}, 404, "model_not_found", "model"),
    ({"input": "a", "encoding_format": "int8"}, 400, "invalid_value", "encoding_format"),
    ({"input": "a", "dimensions": 16}, 400, "unsupported_dimensions", "dimensions"),
    ({"input": "a", "dimensions": "32"}, 400, "unsupported_dimensions", "dimensions"),
    ({"input": "a", "dimensions": True}, 400, "unsupported_dimensions", "dimensions"),
    ({"input": "a", "input_type": "search"}, 400, "invalid_value", "input_type"),
    ({"input": "a", "input_typ": "query"}, 400, "unknown_field", "input_typ"),
]


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"), BAD, ids=lambda value: str(value)[:40]
)
def test_a_wrong_field_is_named(
    server: Served, fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    error = error_of(server.embed(**fields), status)
    assert (error["code"], error["param"]) == (code, param)
    assert param in error["message"]
    assert len(error["message"]) < 400


BODIES = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b'{"input": "a"', "not JSON"),
    (b'{"input": NaN}', "NaN"),
    (b'{"input": [-Infinity]}', "-Infinity"),
    (b'{"input": "\xff\xfe"}', "not UTF-8 at byte 11"),
    (b'["a"]', "an array"),
    (b'"a"', "a string"),
    (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    (b'{"input": ' + b"[" * 90_000, "nested too deeply"),
    (b'{"input": ' + b"9" * 5000 + b"}", "digits"),
    (b"\xef\xbb\xbf{}", "not JSON"),
    (b"a=b&input=c", "not JSON"),
]


@pytest.mark.parametrize(("body", "what"), BODIES, ids=lambda value: str(value)[:20])
def test_a_body_that_cannot_be_read_says_why(server: Served, body: bytes, what: str) -> None:
    for path in ("/v1/embeddings", "/search"):
        error = error_of(server.client.post(path, content=body), 400)
        assert error["code"] == "malformed_body"
        assert what in error["message"]


def test_half_a_surrogate_pair_is_refused(server: Served) -> None:
    answer = server.client.post("/v1/embeddings", content=b'{"input": ["a", "b\\ud800"]}')
    error = error_of(answer, 400)
    assert (error["code"], error["param"]) == ("invalid_text", "input[1]")
    pair = server.client.post("/v1/embeddings", content=b'{"input": "\\ud83d\\ude00 \\u0000"}')
    assert pair.status_code == 200


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("num_bytes", [200_001, 600_000])
def test_a_body_that_is_too_large_is_refused(
    server: Served, num_bytes: int, has_length: bool
) -> None:
    body = json.dumps({"input": "a" * num_bytes}).encode()
    pieces = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    answer = server.client.post("/v1/embeddings", content=body if has_length else pieces)
    error = error_of(answer, 413)
    assert error["code"] == "body_too_large"
    assert "task.max_body_mib" in error["message"]
    assert server.embed(input="a").status_code == 200


def test_a_body_without_an_end_is_not_read_for_ever(server: Served) -> None:
    endless = (b"a" * 50_000 for _ in range(10_000))
    # the server closes, which the client may see before the answer
    with suppress(httpx.TransportError), httpx.Client(base_url=server.url) as client:
        error_of(client.post("/v1/embeddings", content=endless), 413)
    assert next(endless, None) is not None


def test_paths_and_methods_that_there_are_not(server: Served) -> None:
    assert "/v1/embeddings" in error_of(server.client.get("/v2/embeddings"), 404)["message"]
    answer = server.client.get("/v1/embeddings")
    error_of(answer, 405)
    assert answer.headers["allow"] == "POST"
    error_of(server.client.post("/health"), 405)
    for path in ("/docs", "/redoc", "/openapi.json"):
        error_of(server.client.get(path), 404)


def test_models_are_listed(server: Served) -> None:
    listed = server.client.get("/v1/models").json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"], model["dimensions"]) == ("tiny", "model", 32)
    assert model["max_tokens"] == {"query": 300, "document": 300}
    assert server.client.get("/v1/models/tiny").json() == model
    assert error_of(server.client.get("/v1/models/gpt/4"), 404)["code"] == "model_not_found"


def test_search_by_body_and_by_link(server: Served) -> None:
    posted = server.client.post("/search", json={"query": "small cat", "top_k": 2}).json()
    (result,) = posted["results"]
    assert result["query"] == "small cat"
    assert [hit["rank"] for hit in result["hits"]] == [1, 2]
    assert result["hits"][0] == {
        "rank": 1, "document_id": "a/1", "score": 2.0, "title": "Cats",
        "text": "A cat is a small animal",
    }  # fmt: skip
    linked = server.client.get("/search", params={"q": "small cat", "top_k": 2}).json()
    assert linked == posted
    several = server.client.post("/search", json={"queries": ["dogs", "animal"], "top_k": 1}).json()
    assert [entry["query"] for entry in several["results"]] == ["dogs", "animal"]


def test_snippets_mark_the_words_of_the_query_in_any_form(server: Served) -> None:
    asked = {"q": "animals", "snippets": "true", "top_k": 1}
    found = server.client.get("/search", params=asked).json()["results"][0]["hits"][0]
    assert found["snippet"] == [["A cat is a small ", False], ["animal", True]]


BAD_SEARCHES: list[tuple[dict[str, Any], str]] = [
    ({}, "query"),
    ({"query": "a", "queries": ["b"]}, "query"),
    ({"query": ""}, "query"),
    ({"query": " \n"}, "query"),
    ({"query": ["a"]}, "query"),
    ({"query": "a" * 102_400}, "query"),
    ({"queries": []}, "queries"),
    ({"queries": "a"}, "queries"),
    ({"queries": ["a"] * 257}, "queries"),
    ({"queries": ["a", " "]}, "queries[1]"),
    ({"query": "a", "top_k": 0}, "top_k"),
    ({"query": "a", "top_k": 1001}, "top_k"),
    ({"queries": ["a"] * 256, "top_k": 40}, "top_k"),
    ({"query": "a", "top_k": 1.5}, "top_k"),
    ({"query": "a", "top_k": True}, "top_k"),
    ({"query": "a", "top_k": "3"}, "top_k"),
    ({"query": "a", "hybrid": "yes"}, "hybrid"),
    ({"query": "a", "hybrid": True}, "hybrid"),
    ({"query": "a", "k": 3}, "k"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_SEARCHES, ids=lambda value: str(value)[:40])
def test_a_wrong_search_is_named(server: Served, fields: dict[str, Any], param: str) -> None:
    assert error_of(server.client.post("/search", json=fields), 400)["param"] == param


@pytest.mark.parametrize(
    ("link", "param"),
    [
        ("", "query"), ("q=", "query"), ("q=a&q=b", "q"), ("q=a&top_k=x", "top_k"),
        ("q=a&top_k=-1", "top_k"), ("q=a&hybrid=perhaps", "hybrid"), ("q=a&size=3", "size"),
        ("query=a", "query"),
    ],
)  # fmt: skip
def test_a_wrong_link_is_named(server: Served, link: str, param: str) -> None:
    assert error_of(server.client.get(f"/search?{link}"), 400)["param"] == param


def test_documents_by_id(server: Served) -> None:
    found = server.client.get("/documents/a/1").json()
    assert found == {"document_id": "a/1", "title": "Cats", "text": "A cat is a small animal"}
    assert server.client.get("/documents/c%20d").json()["text"] == "no animal at all"
    error = error_of(server.client.get("/documents/nope"), 404)
    assert error["code"] == "document_not_found"
    assert "nope" in error["message"]


def test_health_and_metrics(server: Served) -> None:
    health = server.client.get("/health").json()
    assert (health["status"], health["num_documents"], health["waiting_texts"]) == ("ok", 3, 0)
    server.embed(input=["a", "b"])
    lines = server.client.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values['quarry_requests_total{route="/v1/embeddings",status="200"}']) >= 1
    assert float(values['quarry_texts_total{role="document"}']) >= 2
    assert float(values["quarry_requests_in_flight"]) == 1  # this one
    assert float(values["quarry_waiting_texts"]) == 0


def test_a_server_without_an_index_says_so() -> None:
    with served() as server:
        for answer in (
            server.client.post("/search", json={"query": "a"}),
            server.client.get("/search?q=a"),
            server.client.get("/documents/a"),
        ):
            error = error_of(answer, 404)
            assert error["code"] == "no_index"
            assert "task.index=DIR" in error["message"]


def test_too_many_waiting_texts_get_429_and_the_time_to_wait() -> None:
    encoder = letter_encoder()
    gate = Gate(encoder)
    with served(encoder=encoder, max_waiting_texts=8, max_texts_per_request=8) as server:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(server.embed, input=["a"] * 8)
            assert gate.arrived.wait(30)
            answer = server.embed(input="b")
            error = error_of(answer, 429)
            assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
            assert int(answer.headers["retry-after"]) >= 1
            gate.open()
            assert first.result(30).status_code == 200
        assert server.embed(input="b").status_code == 200


def test_a_program_error_is_answered_and_the_server_stays_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = InMemorySearch(DOCUMENTS)
    with served(searchable=search) as server:
        with monkeypatch.context() as patch:
            patch.setattr(InMemorySearch, "_ranked", lambda *_: 1 / 0)
            error = error_of(server.client.get("/search?q=a"), 500)
            assert error["code"] == "search_failed"
            assert "ZeroDivision" not in error["message"]
            patch.setattr(InMemorySearch, "document", lambda *_: 1 / 0)
            error = error_of(server.client.get("/documents/a"), 500)
            assert error["code"] == "internal_error"
        assert server.client.get("/search?q=a").status_code == 200
