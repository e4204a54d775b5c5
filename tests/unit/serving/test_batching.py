"""Texts of many requests in shared batches: the embeddings of Encoder.encode, in fair turns."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from helpers.served import TEXTS, Gate, letter_encoder
from quarry.errors import UserError
from quarry.retrieval.encoder import Encoder
from quarry.serving.api_errors import ApiError
from quarry.serving.batching import Batcher
from quarry.types import Document, Query, Role

# fp32 sums in another order; embeddings have length 1
TOLERANCE = 1e-6


def documents(texts: Sequence[str]) -> list[Document]:
    return [Document(document_id="", text=text) for text in texts]


def queries(texts: Sequence[str]) -> list[Query]:
    return [Query(query_id="", text=text) for text in texts]


@contextmanager
def batcher(encoder: Encoder, *, max_waiting_texts: int = 10_000) -> Iterator[Batcher]:
    made = Batcher(encoder, max_waiting_texts=max_waiting_texts)
    try:
        yield made
    finally:
        made.close(timeout_s=30)
        assert not made.is_alive


def held(batcher: Batcher, gate: Gate) -> None:
    """Queue a text of its own that holds the encoder, so that what follows waits together."""
    batcher.submit(documents(["x"]), "document")
    assert gate.arrived.wait(30)


@pytest.mark.parametrize("max_tokens", [16, 64, 1000])
def test_embeddings_are_those_of_the_encoder_whoever_shares_the_batch(max_tokens: int) -> None:
    draw = random.Random(max_tokens)
    encoder, gate = letter_encoder(max_tokens_per_batch=max_tokens), None
    plain = letter_encoder(max_tokens_per_batch=max_tokens)
    asked: list[tuple[Role, list[str]]] = []
    for number in range(24):
        texts = [
            "".join(draw.choices("abcdefgh", k=draw.randint(1, 40))) for _ in range(1 + number)
        ]
        asked.append((draw.choice(("query", "document")), texts))
    gate = Gate(encoder)
    with batcher(encoder) as made:
        held(made, gate)
        futures = [
            made.submit(queries(texts) if role == "query" else documents(texts), role)
            for role, texts in asked
        ]
        gate.open()
        found = [future.result(60) for future in futures]
    for (role, texts), encoded in zip(asked, found, strict=True):
        items = queries(texts) if role == "query" else documents(texts)
        expected = plain.encode(items, role).numpy()
        np.testing.assert_allclose(encoded.vectors, expected, atol=TOLERANCE, rtol=0)
        assert encoded.num_tokens == sum(map(len, plain.tokenizer(items, role)))
    # shared: far fewer batches than requests need alone, and none above the budget
    assert all(num_tokens <= max(max_tokens, 45) for _, num_tokens in gate.batches)
    if max_tokens == 1000:
        assert len(gate.batches) < 16


def test_a_batch_is_full_before_the_next_begins() -> None:
    encoder = letter_encoder(max_tokens_per_batch=80)
    gate = Gate(encoder)
    with batcher(encoder) as made:
        held(made, gate)
        # 8 tokens each: P, the colon, five letters, the end token
        futures = [made.submit(documents(["abcde"]), "document") for _ in range(20)]
        gate.open()
        for future in futures:
            future.result(30)
    assert gate.batches[1:] == [(10, 80), (10, 80)]


def test_a_big_request_does_not_hold_up_small_ones() -> None:
    encoder = letter_encoder(max_tokens_per_batch=80)
    gate = Gate(encoder)
    ended: list[str] = []
    with batcher(encoder) as made:
        held(made, gate)
        big = made.submit(documents(["abcde"] * 200), "document")
        big.add_done_callback(lambda _: ended.append("big"))
        small = made.submit(documents(["abcde"]), "document")
        small.add_done_callback(lambda _: ended.append(f"small after {len(gate.batches) - 1}"))
        gate.open()
        big.result(30)
        small.result(30)
    assert ended == ["small after 1", "big"]


def test_queries_do_not_wait_for_all_documents() -> None:
    encoder = letter_encoder(max_tokens_per_batch=80)
    gate = Gate(encoder)
    with batcher(encoder) as made:
        held(made, gate)
        many = made.submit(documents(["abcde"] * 200), "document")
        few = made.submit(queries(["abcde"]), "query")
        gate.open()
        few.result(30)
        assert not many.done()
        many.result(30)


def test_a_cancelled_request_is_not_encoded_and_makes_room() -> None:
    encoder = letter_encoder(max_tokens_per_batch=80)
    gate = Gate(encoder)
    with batcher(encoder, max_waiting_texts=100) as made:
        held(made, gate)
        left = made.submit(documents(["abcde"] * 99), "document")
        with pytest.raises(ApiError, match="100 texts wait") as refused:
            made.submit(documents(["a"]), "document")
        assert refused.value.status == 429
        assert 1 <= (refused.value.retry_after_s or 0) <= 60
        assert left.cancel()
        kept = made.submit(documents(["abcde"] * 10), "document")
        gate.open()
        kept.result(30)
        with pytest.raises(CancelledError):
            left.result(0)
        assert made.num_waiting == 0
    assert gate.batches[1:] == [(10, 80)]


def test_a_text_that_cannot_be_tokenized_fails_its_own_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = letter_encoder()
    tokenize = encoder.tokenizer.__call__

    def refusing(items: Sequence[Query | Document], role: Role) -> object:
        if any(item.text == "bad" for item in items):
            raise UserError("no tokens")
        return tokenize(items, role)

    monkeypatch.setattr(type(encoder.tokenizer), "__call__", lambda _, *given: refusing(*given))
    gate = Gate(encoder)
    with batcher(encoder) as made:
        held(made, gate)
        bad = made.submit(documents(["a", "bad"]), "document")
        good = made.submit(documents(TEXTS), "document")
        gate.open()
        assert np.isfinite(good.result(30).vectors).all()
        with pytest.raises(ApiError, match="no tokens") as error:
            bad.result(30)
        assert error.value.status == 400


def test_a_batch_that_fails_costs_its_own_request_alone() -> None:
    encoder = letter_encoder(max_tokens_per_batch=500)
    poison = len(encoder.tokenizer(documents(["abcdefghij"]), "document")[0])

    def fails(_: object, arguments: tuple[torch.Tensor, ...]) -> None:
        lengths = arguments[0].cu_seqlens.diff()  # type: ignore[attr-defined]
        if (lengths == poison).any():
            raise RuntimeError("a kernel")

    gate = Gate(encoder)
    encoder.model.register_forward_pre_hook(fails)
    with batcher(encoder) as made:
        held(made, gate)
        asked = [["abc"], ["abcdefghij", "ab"], ["a", "b"]]
        futures = [made.submit(documents(texts), "document") for texts in asked]
        gate.open()
        found = [futures[place].result(30).vectors for place in (0, 2)]
        with pytest.raises(ApiError, match="Encoding failed") as error:
            futures[1].result(30)
        assert error.value.status == 500
        assert made.submit(documents(["abc"]), "document").result(30).num_tokens == 6
    expected = letter_encoder().encode(documents(["abc", "a", "b"]), "document").numpy()
    np.testing.assert_allclose(np.concatenate(found), expected, atol=TOLERANCE, rtol=0)


def test_embeddings_that_are_not_finite_are_an_error() -> None:
    encoder = letter_encoder()
    encoder.model.register_forward_hook(lambda _, __, output: output * float("nan"))
    with (
        batcher(encoder) as made,
        pytest.raises(ApiError, match="not finite"),
    ):
        made.submit(documents(["a"]), "document").result(30)


def test_closing_fails_what_waits_and_refuses_what_comes() -> None:
    encoder = letter_encoder()
    gate = Gate(encoder)
    made = Batcher(encoder, max_waiting_texts=100)
    held(made, gate)
    waiting = made.submit(documents(["a"]), "document")
    made.close(timeout_s=0)
    with pytest.raises(ApiError, match="stopping"):
        waiting.result(30)
    with pytest.raises(ApiError, match="stopping") as error:
        made.submit(documents(["a"]), "document")
    assert error.value.status == 503
    gate.open()
    made.close(timeout_s=30)
    assert not made.is_alive
    assert made.num_waiting == 0


def test_many_threads_submit_and_cancel_at_once() -> None:
    encoder = letter_encoder(max_tokens_per_batch=128)
    expected = letter_encoder().encode(documents(TEXTS), "document").numpy()
    wrong: list[str] = []

    def client(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(20):
            future = made.submit(documents(TEXTS), "document")
            if draw.random() < 0.3:
                future.cancel()
                continue
            if not np.allclose(future.result(60).vectors, expected, atol=TOLERANCE, rtol=0):
                wrong.append("differs")

    with batcher(encoder) as made:
        threads = [threading.Thread(target=client, args=[seed]) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        deadline = time.monotonic() + 30
        while made.num_waiting and time.monotonic() < deadline:
            time.sleep(0.01)
        assert made.num_waiting == 0
    assert wrong == []


def test_a_few_texts_wait_for_one_batch_of_many_big_requests() -> None:
    encoder = letter_encoder(max_tokens_per_batch=80)
    gate = Gate(encoder)
    ended: list[int] = []
    with batcher(encoder) as made:
        held(made, gate)
        big = [made.submit(documents(["abcde"] * 30), "document") for _ in range(20)]
        gate.open_for(5)
        small = made.submit(documents(["abcde"]), "document")
        small.add_done_callback(lambda _: ended.append(len(gate.batches)))
        begun = len(gate.batches)
        gate.open()
        small.result(30)
        assert sum(future.done() for future in big) < 10
        for future in big:
            future.result(30)
    assert ended[0] <= begun + 2


def test_a_stream_of_small_requests_does_not_hold_up_a_big_one() -> None:
    encoder = letter_encoder(max_tokens_per_batch=80)
    gate = Gate(encoder)
    with batcher(encoder) as made:
        held(made, gate)
        big = made.submit(documents(["abcde"] * 20), "document")
        small = [made.submit(documents(["abcde"]), "document") for _ in range(200)]
        gate.open()
        big.result(30)
        assert sum(future.done() for future in small) < 100
        for future in small:
            future.result(30)
