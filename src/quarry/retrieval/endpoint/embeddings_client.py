"""Ask an OpenAI-compatible server for embeddings, and say clearly what is wrong with an answer."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quarry.errors import UserError
from quarry.types import Role

MAX_ANSWER_BYTES = 256 * 2**20
"""An answer that is longer is not read to its end: it holds a few vectors."""

REFUSALS = (400, 413, 422)
"""HTTP statuses by which servers refuse a text that is too long, among other things."""

DEFAULT_MODEL = "default"
"""Name that is sent where the server does not list its models."""


class RefusedTextsError(UserError):
    """Error for texts that the server refuses to encode; others may be accepted."""


class EmbeddingsClient:
    """A client of `URL/embeddings`.

    Args:
        url: base address, such as http://127.0.0.1:8000/v1.
        token: sent as a bearer token; None: nothing is sent.
        timeout_s: bound of each request, in seconds.

    Raises:
        UserError: the address is none of HTTP, or the token cannot be sent.
    """

    def __init__(self, *, url: str, token: str | None, timeout_s: float) -> None:
        self.url = checked_url(url)
        self._timeout_s = timeout_s
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._has_token = token is not None
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            # the library's own message would show it
            raise UserError(
                "task.token_env: the variable's value is no token (ASCII without white space is "
                "allowed). Fix: set it to the token alone"
            )
        host = urlsplit(self.url).hostname or ""
        is_local = host in ("localhost", "::1") or host.startswith("127.")
        # no proxy leads to this machine
        self._client = httpx.Client(headers=headers, timeout=timeout_s, trust_env=not is_local)

    def __enter__(self) -> EmbeddingsClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def only_model(self) -> str:
        """Return the name of the server's model; `DEFAULT_MODEL` where it lists none.

        Raises:
            UserError: it has several, or does not answer.
        """
        status, content = self._answer("GET", "models", None)
        if status in (404, 405, 501):
            return DEFAULT_MODEL
        answer = self._checked("models", status, content, model=None)
        entries = answer.get("data") if isinstance(answer, dict) else None
        names = [
            str(entry["id"])
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict) and "id" in entry
        ]
        if len(names) > 1:
            raise UserError(
                f"task.endpoint={self.url}: serves several models ({', '.join(names[:8])}). Fix: "
                f"task.endpoint_model={names[0]}"
            )
        return names[0] if names else DEFAULT_MODEL

    def embed(self, texts: Sequence[str], *, model: str, role: Role | None) -> Tensor:
        """Return the embeddings of some texts, [num_texts, dim] fp32, in their order.

        Args:
            role: sent as `input_type`, for servers that apply prompts; None: nothing is sent.

        Raises:
            RefusedTextsError: the server refuses these texts.
            UserError: it refuses the request, does not answer, or answers with something else.
        """
        body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "float"}
        if role is not None:
            body["input_type"] = role
        status, content = self._answer("POST", "embeddings", body)
        answer = self._checked("embeddings", status, content, model=model)
        return _vectors(answer, num_texts=len(texts), url=self.url)

    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, bytes]:
        """Return status and content of an answer."""
        ends = time.monotonic() + self._timeout_s
        content = bytearray()
        try:
            with self._client.stream(method, f"{self.url}/{path}", json=body) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise self._wrong(f"answers with more than {MAX_ANSWER_BYTES:,} bytes")
                    if time.monotonic() > ends:
                        raise httpx.ReadTimeout("the answer takes too long")
                return response.status_code, bytes(content)
        except httpx.TimeoutException as error:
            raise self._wrong(
                f"gives no answer within {self._timeout_s:g} s. Fix: task.timeout_s=600 for a slow "
                "server; or look at its log"
            ) from error
        except httpx.ConnectError as error:
            raise self._wrong(
                f"cannot be reached ({error}). Fix: start the server, or correct host and port"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._wrong(
                f"breaks off or does not speak HTTP ({type(error).__name__}: {error}). Fix: "
                "correct scheme (http, https), host and port"
            ) from error

    def _checked(self, path: str, status: int, content: bytes, *, model: str | None) -> Any:
        """Return the JSON of an answer."""
        shown = _shown(content)
        if status in (401, 403):
            how = "refuses the token" if self._has_token else "asks for a token"
            raise self._wrong(f"{how} (HTTP {status}). Fix: task.token_env=NAME of the variable")
        if status == 404:
            raise self._wrong(
                f"knows no {self.url}/{path}, or no model {model!r} (HTTP 404: {shown}). Fix: the "
                "address with its /v1, or task.endpoint_model=NAME"
            )
        if 300 <= status < 400:
            raise self._wrong(f"redirects elsewhere (HTTP {status}). Fix: name that address")
        if status in REFUSALS:
            raise RefusedTextsError(
                f"task.endpoint={self.url}: refuses the request (HTTP {status}: {shown})"
            )
        if status != 200:
            raise self._wrong(f"fails (HTTP {status}: {shown}). Fix: look at the server's log")
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            kind = "a web page" if content.lstrip()[:1] == b"<" else "no JSON"
            raise self._wrong(
                f"answers with {kind} ({shown}). Fix: the address of the API, which often ends in "
                "/v1"
            ) from error

    def _wrong(self, what: str) -> UserError:
        return UserError(f"task.endpoint={self.url}: {what}")


def checked_url(url: str) -> str:
    """Return the base address without a slash at its end, and without /embeddings.

    Raises:
        UserError: it is no address of HTTP, or has a password.
    """
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_whole = is_whole and not (parts.query or parts.fragment) and parts.port != 0
    except ValueError:  # a port that is no number
        is_whole = False
    if not is_whole:
        raise UserError(
            f"task.endpoint={url}: no address of a server. Fix: "
            "task.endpoint=http://127.0.0.1:8000/v1"
        )
    if parts.username is not None or parts.password is not None:
        raise UserError(
            "task.endpoint: has a user or password in it, which would be shown. Fix: leave it "
            "out, and task.token_env=NAME of a variable that holds the token"
        )
    return url.rstrip("/").removesuffix("/embeddings")


def _vectors(answer: Any, *, num_texts: int, url: str) -> Tensor:
    """Return the vectors of an answer in the order of the texts."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    where = f"task.endpoint={url}: answers with"
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        shown = shorten(json.dumps(answer), 200, placeholder=" ...")
        raise UserError(f"{where} no list of embeddings under `data` ({shown})")
    if len(entries) != num_texts:
        raise UserError(f"{where} {len(entries)} embeddings for {num_texts} texts")
    order = [entry.get("index", place) for place, entry in enumerate(entries)]
    if not all(type(place) is int for place in order) or sorted(order) != list(range(num_texts)):
        raise UserError(f"{where} the indices {order} for {num_texts} texts")
    rows: dict[int, NDArray[np.float32]] = {}
    for place, entry in zip(order, entries, strict=True):
        rows[place] = _vector(entry.get("embedding"), where=f"{where} an embedding (text {place})")
    widths = sorted({len(row) for row in rows.values()})
    if len(widths) > 1:
        raise UserError(f"{where} embeddings of several widths ({', '.join(map(str, widths))})")
    return torch.from_numpy(np.stack([rows[place] for place in range(num_texts)]))


def _vector(value: Any, *, where: str) -> NDArray[np.float32]:
    """Return one vector, from numbers or from base64 of little-endian float32."""
    try:
        if isinstance(value, str):
            row = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4")
        elif isinstance(value, list) and not any(isinstance(each, bool) for each in value):
            row = np.asarray(value, dtype=np.float64)
        else:
            raise ValueError(f"a {type(value).__name__}")
        if row.ndim != 1 or not row.size:
            raise ValueError(f"shape {row.shape}")
    except (ValueError, TypeError, binascii.Error, OverflowError) as error:
        raise UserError(
            f"{where} that is neither a list of numbers nor base64 of float32 ({error})"
        ) from error
    if not np.isfinite(row).all() or not np.abs(row).max() < 1e30:
        raise UserError(
            f"{where} with numbers that are not finite (NaN, inf). Fix: run the server in "
            "float32 or bfloat16: float16 overflows in some models"
        )
    if not row.any():
        raise UserError(f"{where} that is zero. Fix: look at the server's log")
    return row.astype(np.float32)


def _shown(content: bytes) -> str:
    text = " ".join(content[:2000].decode("utf-8", "replace").split())
    return shorten(text, 200, placeholder=" ...") or "empty"
