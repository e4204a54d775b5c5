"""Every rule that a server breaks is named, and nothing else; one that keeps them passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.models import random_projections, tiny_qwen
from helpers.stub_endpoint import Server
from helpers.tokenizers import chat_tokenizer
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.mean import Mean
from quarry.retrieval.endpoint.broken_rules import Sends
from quarry.retrieval.endpoint.findings import Diagnosis, diagnose
from quarry.retrieval.golden_texts import GOLDEN, role_of
from quarry.types import Role

PROMPT = Prompt(
    query="Query: {text}", document="Passage: {text}", max_query_length=150,
    max_document_length=150,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _few_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text is computed to 8,192 tokens."""
    monkeypatch.setattr("quarry.retrieval.endpoint.diagnosis.LENGTHS", (32, 64, 128, 256))


def tokenizer_of(prompt: Prompt = PROMPT) -> TextTokenizer:
    return TextTokenizer(tokenizer=chat_tokenizer(), prompt=prompt)


def model_of(**more: Any) -> BiEncoder:
    return BiEncoder(backbone=tiny_qwen(vocab_size=448), **({"pooling": LastToken()} | more)).eval()


def answered(
    server: Server, *, model: BiEncoder, tokenizer: TextTokenizer, sends: Sends = "text"
) -> list[Tensor | None]:
    """What a server gives for the golden texts."""
    found: list[Tensor | None] = []
    for item in GOLDEN:
        role = role_of(item)
        (text,) = (
            tokenizer.rendered([item], role)
            if sends == "rendered"
            else [tokenizer.frames[role].text_of(item)]
        )
        found.append(server.embed(text, role, model=model, tokenizer=tokenizer))
    return found


def diagnosed(
    server: Server,
    *,
    sends: Sends = "text",
    model: BiEncoder | None = None,
    tokenizer: TextTokenizer | None = None,
    change: Callable[[list[Tensor | None]], list[Tensor | None]] = list,
) -> Diagnosis:
    model, tokenizer = model or model_of(), tokenizer or tokenizer_of()
    found = change(answered(server, model=model, tokenizer=tokenizer, sends=sends))
    return diagnose(found, model=model, tokenizer=tokenizer, sends=sends, max_distance=0.01)


def lines(diagnosis: Diagnosis) -> list[str]:
    return [f"{one.who}: {one.what}" for one in diagnosis.findings]


def as_it_is(role: Role, text: str) -> str:
    return text


def passage(role: Role, text: str) -> str:
    return f"Passage: {text}"


def query(role: Role, text: str) -> str:
    return f"Query: {text}"


def twice(role: Role, text: str) -> str:
    name = "Query: " if role == "query" else "Passage: "
    return f"{name}{name}{text}"


BOTH = "Queries and documents"


def named(one: object) -> str:
    """Name a case by what is expected: the text of a server has addresses of functions."""
    return str(one)[:60] if isinstance(one, list) else type(one).__name__


BROKEN: list[tuple[Server, list[str]]] = [
    (Server(), []),
    (Server(prompt=as_it_is), [f"{BOTH}: no prompt is applied"]),
    (Server(prompt=twice), [f"{BOTH}: the prompt is applied twice"]),
    (Server(prompt=query), ["Documents: the prompt of a query is applied"]),
    (Server(prompt=passage), ["Queries: the prompt of a document is applied"]),
    (Server(num_ends=0), [f"{BOTH}: the end token '<|endoftext|>' is missing"]),
    (Server(num_ends=2), [f"{BOTH}: the end token '<|endoftext|>' is doubled"]),
    (Server(pooling="mean"), [f"{BOTH}: the pooled state is the mean of all tokens', not that of "
                              "LastToken"]),
    (Server(pooling="cls"), [f"{BOTH}: the pooled state is the first token's (CLS), not that of "
                             "LastToken"]),
    (Server(is_causal=False),
     [f"{BOTH}: every token sees the full text (bidirectional attention)"]),
    (Server(max_tokens=64),
     ["Long documents: texts are cut to 64 tokens, and the contract says 150"]),
    (Server(max_tokens=256),
     ["Long documents: texts are cut to 256 tokens, and the contract says 150"]),
    (Server(loses_end=True), ["Long documents: the end token is cut off of texts that are "
                              "too long"]),
    (Server(is_normalized=False), [f"{BOTH}: vectors are not normalized to length 1, so inner "
                                   "products are no cosines"]),
    (Server(edits=str.strip), ["Documents: outer white space is removed"]),
    (Server(edits=lambda text: text.replace("\n", " ")), ["Documents: line breaks are replaced by "
                                                          "blanks"]),
    (Server(edits=lambda text: text.removeprefix("Photosynthesis ").removeprefix("Squares ")),
     ["Documents: titles are left out"]),
    (Server(edits=lambda text: text.replace("Photosynthesis ", "Photosynthesis\n")
            .replace("Squares ", "Squares\n")),
     ["Documents: title and text are joined by a line break, not by a blank"]),
    (Server(prompt=as_it_is, num_ends=0),
     [f"{BOTH}: no prompt is applied and the end token '<|endoftext|>' is missing"]),
    (Server(prompt=as_it_is, num_ends=0, pooling="mean"),
     [f"{BOTH}: no prompt is applied and the end token '<|endoftext|>' is missing and the pooled "
      "state is the mean of all tokens', not that of LastToken"]),
    (Server(dim=16), [f"{BOTH}: vectors have the first 16 of 32 dimensions"]),
]  # fmt: skip


@pytest.mark.parametrize(("server", "expected"), BROKEN, ids=named)
def test_a_broken_rule_is_named(server: Server, expected: list[str]) -> None:
    diagnosis = diagnosed(server)
    assert lines(diagnosis) == expected
    assert all(one.remedy for one in diagnosis.findings)
    if server.dim is None:  # otherwise no vector can be compared
        is_equal = min(diagnosis.cosines) > 0.9999
        assert is_equal == (not expected or not server.is_normalized)


def rendered_twice(role: Role, text: str) -> str:
    return ("Query: " if role == "query" else "Passage: ") + text


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (Server(prompt=as_it_is), []),
        (Server(prompt=rendered_twice), [f"{BOTH}: the prompt is applied twice"]),
        (Server(prompt=query), ["Queries: the prompt is applied twice",
                                "Documents: the prompt of a query is applied on top"]),
        (Server(prompt=as_it_is, num_ends=0),
         [f"{BOTH}: the end token '<|endoftext|>' is missing"]),
        (Server(prompt=as_it_is, max_tokens=64),
         ["Long documents: texts are cut to 64 tokens, and the contract says 150"]),
    ],
    ids=named,
)  # fmt: skip
def test_a_client_that_renders_the_prompt(server: Server, expected: list[str]) -> None:
    diagnosis = diagnosed(server, sends="rendered")
    assert lines(diagnosis) == expected
    if expected and "twice" in expected[0]:
        assert "task.sends=text" in diagnosis.findings[0].remedy


def test_half_precision_passes_and_hides_no_broken_rule() -> None:
    def rounded(found: list[Tensor | None]) -> list[Tensor | None]:
        torch.manual_seed(3)
        # as bfloat16 does in a large model
        return [None if v is None else v + 0.004 * v.norm() * torch.randn(32) for v in found]

    right = diagnosed(Server(), change=rounded)
    assert 0.99 < min(right.cosines) < 0.9999
    assert lines(right) == []
    wrong = diagnosed(Server(num_ends=2), change=rounded)
    assert lines(wrong) == [f"{BOTH}: the end token '<|endoftext|>' is doubled"]


def test_another_model_is_not_explained_by_a_rule() -> None:
    torch.manual_seed(7)
    other = model_of()
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    tokenizer = tokenizer_of()
    found = answered(Server(), model=other, tokenizer=tokenizer)
    diagnosis = diagnose(
        found, model=model_of(), tokenizer=tokenizer, sends="text", max_distance=0.01
    )
    (line,) = lines(diagnosis)
    assert "another model or other weights answer" in line
    wide = [torch.ones(48) for _ in found]
    diagnosis = diagnose(
        wide, model=model_of(), tokenizer=tokenizer, sends="text", max_distance=0.01
    )
    assert lines(diagnosis) == [
        f"{BOTH}: vectors have 48 dimensions, not 32: another model answers"
    ]


def test_vectors_in_another_order() -> None:
    def mixed(found: list[Tensor | None]) -> list[Tensor | None]:
        return [found[1], found[0], *found[2:]]

    (line,) = lines(diagnosed(Server(), change=mixed))
    assert line == "Queries: vectors come in another order than the texts ([1, 0, 2])"


def test_a_refused_text_is_named() -> None:
    (line,) = lines(diagnosed(Server(), change=lambda found: [*found[:-1], None]))
    assert line == "Long texts: the server refuses 'long', which it should cut"


def test_layers_after_the_pooling_that_are_left_out() -> None:
    model = model_of(projections=random_projections())
    assert lines(diagnosed(Server(), model=model)) == [
        f"{BOTH}: the layers after the pooling are left out"
    ]


def test_a_mean_that_leaves_out_the_prompt() -> None:
    model = model_of(pooling=Mean(include_prompt=False))
    right = answered_by_us(model)
    assert diagnose(
        right, model=model, tokenizer=tokenizer_of(), sends="text", max_distance=0.01
    ).findings == ()  # fmt: skip
    assert lines(diagnosed(Server(pooling="mean"), model=model)) == [
        f"{BOTH}: the pooled state is the mean of all tokens', not that of Mean"
    ]


def answered_by_us(model: BiEncoder) -> list[Tensor | None]:
    from quarry.retrieval.golden_texts import golden_embeddings

    return list(golden_embeddings(model, tokenizer_of()))


def test_templates_that_end_behind_the_text_and_missing_titles() -> None:
    prompt = Prompt(
        query='"{text}" is', document='"{title} {text}" is', max_query_length=150,
        max_document_length=150, end_token=None,
    )  # fmt: skip
    tokenizer, model = tokenizer_of(prompt), model_of()
    sends: Sends = "rendered"
    right = Server(prompt=as_it_is, max_tokens=10_000)
    assert lines(diagnosed(right, sends=sends, model=model, tokenizer=tokenizer)) == []
    cut = Server(prompt=as_it_is, max_tokens=64)
    assert lines(diagnosed(cut, sends=sends, model=model, tokenizer=tokenizer)) == [
        "Long documents: texts are cut to 64 tokens, and the contract says 150"
    ]
