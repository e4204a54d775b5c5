"""Verify a server of embeddings by the golden texts, and say which rule of the contract differs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from torch import Tensor

from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.models.bi_encoder import BiEncoder
from quarry.retrieval.endpoint.broken_rules import Sends
from quarry.retrieval.endpoint.embeddings_client import EmbeddingsClient, RefusedTextsError
from quarry.retrieval.endpoint.findings import Diagnosis, diagnose
from quarry.retrieval.golden_texts import GOLDEN, golden_table, role_of
from quarry.runtime.secret_values import remember
from quarry.runtime.task_output import show
from quarry.types import ROLES, Role


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A server to verify.

    Attributes:
        url: base address, such as http://127.0.0.1:8000/v1.
        model: its name of the model; None: the only one that it lists.
        token_env: environment variable with a token; None: no token is sent.
        sends: "rendered": strings with the prompt in them; "text": texts, with `input_type`.
        min_cosine: smallest cosine that counts as equal.
        timeout_s: bound of each request, in seconds.
    """

    url: str
    model: str | None
    token_env: str | None
    sends: Sends
    min_cosine: float
    timeout_s: float


def check_endpoint(endpoint: Endpoint) -> None:
    """Refuse options that cannot be used, before anything is read.

    Raises:
        UserError: `sends` is unknown, or the variable is not set.
    """
    if endpoint.sends not in get_args(Sends):
        raise UserError(
            f"task.sends={endpoint.sends}: not one of {', '.join(get_args(Sends))}. Fix: "
            "task.sends=text for a server that applies the prompt itself, else rendered"
        )
    if endpoint.token_env is not None and not os.environ.get(endpoint.token_env):
        raise UserError(
            f"task.token_env={endpoint.token_env}: no environment variable of this name is set. "
            f"Fix: export {endpoint.token_env}=TOKEN"
        )


def fetch_golden(endpoint: Endpoint, tokenizer: TextTokenizer) -> list[Tensor | None]:
    """Return the server's vector of each golden text; None for one that it refuses.

    Raises:
        UserError: it does not answer, refuses all texts, or answers with something else.
    """
    token = None if endpoint.token_env is None else os.environ[endpoint.token_env].strip()
    if token is not None:
        remember(token)
    found: list[Tensor | None] = [None] * len(GOLDEN)
    with EmbeddingsClient(url=endpoint.url, token=token, timeout_s=endpoint.timeout_s) as client:
        model = client.only_model() if endpoint.model is None else endpoint.model
        for role in ROLES:
            places = [place for place, item in enumerate(GOLDEN) if role_of(item) == role]
            texts = _sent(endpoint, tokenizer, places, role)
            vectors = _accepted(client, texts, model=model, role=_stated(endpoint, role))
            for place, vector in zip(places, vectors, strict=True):
                found[place] = vector
    widths = sorted({len(vector) for vector in found if vector is not None})
    if len(widths) > 1:
        raise UserError(
            f"task.endpoint={endpoint.url}: gives vectors of several widths "
            f"({', '.join(map(str, widths))}). Fix: look at the server's log"
        )
    return found


def verify_endpoint(
    endpoint: Endpoint,
    found: Sequence[Tensor | None],
    *,
    model: BiEncoder,
    tokenizer: TextTokenizer,
) -> dict[str, float]:
    """Compare a server's vectors with the model; return the smallest cosine.

    Raises:
        UserError: they differ; the message says in which rule, with a remedy.
    """
    diagnosis = diagnose(
        found, model=model, tokenizer=tokenizer, sends=endpoint.sends,
        max_distance=1 - endpoint.min_cosine,
    )  # fmt: skip
    lengths = [len(tokenizer([item], role_of(item))[0].ids) for item in GOLDEN]
    least = float(np.min(diagnosis.cosines))  # NaN where a vector is missing
    show(
        golden_table(lengths, {"cosine": diagnosis.cosines}),
        _outcome(endpoint, diagnosis),
        result_line=f"cosine endpoint={least:.6f}",
    )
    if diagnosis.findings:
        raise UserError(f"task.endpoint={endpoint.url}: {_sentence(diagnosis)}")
    return {"verify/endpoint": least}


def _sent(
    endpoint: Endpoint, tokenizer: TextTokenizer, places: Sequence[int], role: Role
) -> list[str]:
    items = [GOLDEN[place] for place in places]
    if endpoint.sends == "rendered":
        return tokenizer.rendered(items, role)
    return [tokenizer.frames[role].text_of(item) for item in items]


def _stated(endpoint: Endpoint, role: Role) -> Role | None:
    return role if endpoint.sends == "text" else None


def _accepted(
    client: EmbeddingsClient, texts: Sequence[str], *, model: str, role: Role | None
) -> list[Tensor | None]:
    """Return the vectors of the texts; of those alone that the server accepts, if it is not all."""
    try:
        return list(client.embed(texts, model=model, role=role))
    except RefusedTextsError as error:
        refusal = error
    vectors: list[Tensor | None] = []
    for text in texts:
        try:
            vectors.append(client.embed([text], model=model, role=role)[0])
        except RefusedTextsError:
            vectors.append(None)
    if all(vector is None for vector in vectors):
        raise refusal
    return vectors


def _outcome(endpoint: Endpoint, diagnosis: Diagnosis) -> str:
    if not diagnosis.findings:
        return f"{endpoint.url} gives the model's embeddings (task.sends={endpoint.sends})."
    lines = [f"{one.who}: {one.what}.\n  Fix: {one.remedy}." for one in diagnosis.findings]
    return "\n".join([f"{endpoint.url} differs from the contract:", *lines])


def _sentence(diagnosis: Diagnosis) -> str:
    """Return all findings as the end of one message."""
    what = "; ".join(f"{one.who.lower()}: {one.what}" for one in diagnosis.findings)
    remedies = dict.fromkeys(one.remedy for one in diagnosis.findings)
    return f"differs from the model's contract: {what}. Fix: {'; '.join(remedies)}"
