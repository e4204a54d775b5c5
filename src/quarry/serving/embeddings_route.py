"""Read requests of `/v1/embeddings` and write their responses, as OpenAI's API has them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quarry.serving.api_errors import ApiError
from quarry.serving.json_body import checked_choice, checked_text, invalid, json_object, type_name
from quarry.serving.limits import Limits
from quarry.serving.served_model import ServedModel
from quarry.serving.waiting_request import Encoded
from quarry.types import Document, Query, Role

FIELDS = ("input", "model", "encoding_format", "dimensions", "user", "input_type")

INPUT_TYPES: dict[str, Role] = {"query": "query", "document": "document", "passage": "document"}

FORMATS = ("float", "base64")


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingsRequest:
    """A request that is checked.

    Attributes:
        items: the texts, at least one.
        is_base64: write vectors as little-endian float32 in base64, not as numbers.
    """

    items: Sequence[Query | Document]
    role: Role
    is_base64: bool


def read_request(body: bytes, *, model: ServedModel, limits: Limits) -> EmbeddingsRequest:
    """Return the request that a body holds.

    Without `input_type` texts are documents: OpenAI's clients send none, and a query by mistake
    encoded as a document costs less than a corpus encoded as queries.

    Raises:
        ApiError: 400 for a wrong field, 404 for another model.
    """
    fields = json_object(body, known=FIELDS)
    model.check_name(fields.get("model"))
    if "input" not in fields:
        raise invalid("input", "is missing (a string, or an array of strings)")
    texts = _texts(fields["input"], limits)
    kind = fields.get("input_type")
    role: Role = "document"
    if kind is not None:
        role = INPUT_TYPES[checked_choice(kind, param="input_type", choices=tuple(INPUT_TYPES))]
    encoding = fields.get("encoding_format")
    if encoding is not None:
        checked_choice(encoding, param="encoding_format", choices=FORMATS)
    _check_dimensions(fields.get("dimensions"), model)
    items: Sequence[Query | Document]
    if role == "query":
        items = [Query(query_id="", text=text) for text in texts]
    else:
        items = [Document(document_id="", text=text) for text in texts]
    return EmbeddingsRequest(items=items, role=role, is_base64=encoding == "base64")


def _texts(value: object, limits: Limits) -> list[str]:
    if isinstance(value, str):
        return [checked_text(value, param="input", limits=limits)]
    if not isinstance(value, list):
        problem = f"a string or an array of strings is expected, not {type_name(value)}"
        raise invalid("input", problem)
    if not value:
        raise invalid("input", "the array is empty", code="empty_input")
    if len(value) > limits.max_texts_per_request and not isinstance(value[0], int | float):
        raise invalid(
            "input",
            f"has {len(value):,} texts (at most {limits.max_texts_per_request:,}, "
            "task.max_texts_per_request). Fix: send several requests",
            code="too_many_texts",
        )
    if isinstance(value[0], int | list) and not isinstance(value[0], bool):
        raise invalid(
            "input",
            "token ids are not accepted, for they belong to another tokenizer than the model's. "
            "Fix: send texts (LangChain: check_embedding_ctx_length=False)",
            code="token_ids",
        )
    return [
        checked_text(text, param=f"input[{place}]", limits=limits)
        for place, text in enumerate(value)
    ]


def _check_dimensions(value: object, model: ServedModel) -> None:
    if value is not None and (isinstance(value, bool) or value != model.dim):
        raise ApiError(
            400,
            f"dimensions={json.dumps(value)[:80]}: this server's embeddings have {model.dim}. Fix: "
            "leave it out; a server of a Matryoshka model started with model.embedding_dim=N gives "
            "N.",
            code="unsupported_dimensions",
            param="dimensions",
        )


def response_body(encoded: Encoded, request: EmbeddingsRequest, *, model: ServedModel) -> bytes:
    """Return the response, JSON."""
    write = _as_base64 if request.is_base64 else _as_numbers
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%s}' % (index, vector)
        for index, vector in enumerate(write(encoded.vectors))
    )
    tokens = encoded.num_tokens
    usage = b'"usage":{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
    name = json.dumps(model.name).encode()
    return b'{"object":"list","data":[%s],"model":%s,%s}' % (data, name, usage)


def _as_base64(vectors: NDArray[np.float32]) -> Iterator[bytes]:
    for vector in vectors.astype("<f4", copy=False):
        yield b'"%s"' % base64.b64encode(vector)


def _as_numbers(vectors: NDArray[np.float32]) -> Iterator[bytes]:
    """Yield each vector with nine digits a number, from which float32 is read back exactly."""
    row = ("[" + "%.9g," * vectors.shape[1])[:-1] + "]"
    for vector in vectors:
        yield (row % tuple(vector.tolist())).encode()
