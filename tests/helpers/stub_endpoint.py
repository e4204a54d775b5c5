"""A server of embeddings that breaks rules of a model's contract, on a port of this machine.

It computes embeddings by its own code, not by that of `quarry.retrieval.endpoint`.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quarry.data.packing import pack
from quarry.data.tokenization import TextTokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.types import Role


@dataclass(frozen=True, kw_only=True)
class Server:
    """What a server does with a text.

    Attributes:
        prompt: what is put before a text, by role; None: the contract's prompt.
        edits: changes the text before the prompt.
        num_ends: end tokens behind a text.
        max_tokens: by which rows are cut; None: the contract's.
        loses_end: the end token is cut off, too.
        pooling: last, mean or cls.
        is_normalized, is_causal: as in the contract.
        dim: entries that are returned; None: all.
    """

    prompt: Callable[[Role, str], str] | None = None
    edits: Callable[[str], str] = str
    num_ends: int = 1
    max_tokens: int | None = None
    loses_end: bool = False
    pooling: str = "last"
    is_normalized: bool = True
    is_causal: bool = True
    dim: int | None = None

    def embed(self, text: str, role: Role, *, model: BiEncoder, tokenizer: TextTokenizer) -> Tensor:
        frame = tokenizer.frames[role]
        edited = self.edits(text)
        string = frame.render(edited) if self.prompt is None else self.prompt(role, edited)
        ids = tokenizer.tokenizer(string, add_special_tokens=False)["input_ids"]
        ends = list(frame.end_ids) * self.num_ends
        limit = self.max_tokens or tokenizer.prompt.max_length(role)
        row = [*ids, *ends][:limit] if self.loses_end else [*ids[: limit - len(ends)], *ends]
        was, model.is_causal = model.is_causal, self.is_causal
        with torch.no_grad():
            states = model.token_states(pack([row]))
        model.is_causal = was
        pooled = {"last": states[-1], "mean": states.mean(0), "cls": states[0]}[self.pooling]
        vector = pooled[: self.dim]
        return vector / vector.norm() if self.is_normalized else vector


Answer = tuple[int, str, bytes]
"""Status, content type and content."""


@dataclass
class Stub:
    """What is answered, and what was asked.

    Attributes:
        embed: text and role -> its vector.
        models: names that are listed; None: HTTP 404.
        refuses: texts of more characters, by HTTP 413.
        answers: replaces the answer of a request for embeddings.
        is_base64: vectors in base64.
        token: that is asked for.
        asked: bodies of the requests for embeddings.
    """

    embed: Callable[[str, Role], Tensor] = lambda text, role: torch.ones(4)
    models: Sequence[str] | None = ("mine",)
    refuses: int | None = None
    answers: Callable[[dict[str, Any]], Answer] | None = None
    is_base64: bool = False
    token: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, body: dict[str, Any] | None, token: str | None) -> Answer:
        if self.token is not None and token != f"Bearer {self.token}":
            return 401, "application/json", b'{"error": "no"}'
        if path == "/v1/models" and self.models is not None:
            return _json({"data": [{"id": name} for name in self.models]})
        if path != "/v1/embeddings" or body is None:
            return 404, "application/json", b'{"error": "no such path"}'
        self.asked.append(body)
        if self.answers is not None:
            return self.answers(body)
        if self.refuses is not None and any(len(text) > self.refuses for text in body["input"]):
            return 413, "application/json", b'{"error": "too long"}'
        rows = [self.embed(text, body.get("input_type", "document")) for text in body["input"]]
        data = [{"index": place, "embedding": self._encoded(row)} for place, row in enumerate(rows)]
        return _json({"data": data[::-1]})  # the index counts, not the place

    def _encoded(self, row: Tensor) -> object:
        if self.is_base64:
            return base64.b64encode(row.numpy().astype("<f4").tobytes()).decode()
        return row.numpy().astype(np.float64).tolist()


def _json(content: object) -> Answer:
    return 200, "application/json", json.dumps(content).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._answer(json.loads(self.rfile.read(length)))

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, body: dict[str, Any] | None) -> None:
        status, kind, content = self.stub.answer(self.path, body, self.headers["Authorization"])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def served(stub: Stub) -> Iterator[Stub]:
    """Serve a stub; its `url` is the base address."""
    handler = type("Handler", (_Handler,), {"stub": stub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
