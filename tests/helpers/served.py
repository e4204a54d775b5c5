"""A server in this process, on a free port, with a tiny model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from helpers.models import letter_tokenizer, tiny_bi_encoder
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.retrieval.encoder import Encoder
from quarry.serving.assembled_server import assembled_server
from quarry.serving.http_server import HttpServer
from quarry.serving.limits import Limits
from quarry.serving.listening import listening_socket, url_of
from quarry.serving.search_service import ServedIndex
from quarry.serving.served_model import ServedModel
from quarry.types import Document, Role

LIMITS = Limits(
    max_body_bytes=200_000,
    max_texts_per_request=64,
    max_characters_per_text=2_000,
    max_waiting_texts=128,
    client_timeout_s=20,
)

TEXTS = ("abc", "zyxwvutsrqponmlk", "a", "hello world", "b", "abcabcabc", "queue")


def letter_encoder(*, max_tokens_per_batch: int = 64) -> Encoder:
    """An encoder of at most 300 tokens, one a letter; queries and documents differ by prompt."""
    prompt = Prompt(
        query="Q:{text}", document="P:{text}", max_query_length=300, max_document_length=300
    )
    return Encoder(
        model=tiny_bi_encoder(),
        tokenizer=TextTokenizer(tokenizer=letter_tokenizer(), prompt=prompt),
        max_tokens_per_batch=max_tokens_per_batch,
    )


class Gate:
    """Holds an encoder's forward passes until it is opened; counts their tokens and texts."""

    def __init__(self, encoder: Encoder, *, is_open: bool = False) -> None:
        self.batches: list[tuple[int, int]] = []
        self.arrived = threading.Event()
        self._is_open = threading.Event()
        self._permits = threading.Semaphore(0)
        if is_open:
            self._is_open.set()
        encoder.model.register_forward_pre_hook(self._hold)

    def open(self) -> None:
        self._is_open.set()

    def open_for(self, num_batches: int) -> None:
        """Let so many batches pass, and return once the next one is held."""
        until = len(self.batches) + num_batches
        self._permits.release(num_batches)
        while len(self.batches) < until:
            time.sleep(0.005)

    def _hold(self, _: object, arguments: tuple[Any, ...]) -> None:
        self.batches.append((len(arguments[0]), arguments[0].num_tokens))
        self.arrived.set()
        for _ in range(6000):
            if self._is_open.wait(0.005) or self._permits.acquire(blocking=False):
                return
        raise AssertionError("the gate was not opened")


@dataclass(frozen=True)
class Found:
    document: Document
    score: float


@dataclass
class InMemorySearch:
    """Ranks documents by the number of words that they share with a query."""

    documents: Sequence[Document]
    has_hybrid: bool = False
    calls: list[tuple[tuple[str, ...], int, bool]] = field(default_factory=list)

    @property
    def num_documents(self) -> int:
        return len(self.documents)

    def search(self, texts: Sequence[str], *, top_k: int, hybrid: bool) -> list[list[Found]]:
        self.calls.append((tuple(texts), top_k, hybrid))
        return [self._ranked(text)[:top_k] for text in texts]

    def _ranked(self, text: str) -> list[Found]:
        words = set(text.lower().split())
        found = [
            Found(each, len(words & set(each.text.lower().split()))) for each in self.documents
        ]
        return sorted(found, key=lambda hit: -hit.score)

    def document(self, document_id: str) -> Document | None:
        return next((each for each in self.documents if each.document_id == document_id), None)


@dataclass(frozen=True)
class Served:
    url: str
    server: HttpServer
    thread: threading.Thread
    client: httpx.Client

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def embed(self, **fields: Any) -> httpx.Response:
        return self.client.post("/v1/embeddings", json=fields)


@contextmanager
def served(
    *,
    encoder: Encoder | None = None,
    searchable: ServedIndex | None = None,
    token: str | None = None,
    grace_s: float = 10,
    **limits: Any,
) -> Iterator[Served]:
    """Serve until the block ends; the thread has ended then."""
    encoder = encoder or letter_encoder()
    lengths: dict[Role, int] = {"query": 300, "document": 300}
    model = ServedModel(
        name="tiny", dim=encoder.model.embedding_dim, max_lengths=lengths, created=1
    )
    chosen = replace(LIMITS, **limits)
    with (
        closing(listening_socket("127.0.0.1", 0)) as listener,
        assembled_server(
            encoder, model=model, open_index=None if searchable is None else lambda _: searchable,
            token=token, limits=chosen, listener=listener, grace_s=grace_s,
        ) as server,
    ):  # fmt: skip
        url = url_of(listener)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
                yield Served(url, server, thread, client)
        finally:
            server.stop()
            thread.join(30)
            assert not thread.is_alive()
