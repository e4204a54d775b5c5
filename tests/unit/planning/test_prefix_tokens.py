"""Tokens that go through the model once a pass, as a plan knows them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config"))
from configurations import composed, opened

from helpers.models import letter_tokenizer
from quarry.config.instantiate import build
from quarry.data.tokenization import TextTokenizer
from quarry.planning.prefix_tokens import PrefixTokens, prefix_note, prefix_tokens
from quarry.planning.setup import planned_model

NOTHING: PrefixTokens = {"query": 0, "document": 0}


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with opened():
        yield


@pytest.fixture(autouse=True)
def _away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def asked(*overrides: str) -> DictConfig:
    return composed("eval", "model=qwen-base", *overrides)


def of_letters(config: DictConfig) -> TextTokenizer:
    return TextTokenizer(tokenizer=letter_tokenizer(), prompt=build(config.prompt))


LETTERS = ("prompt.query='tofind:{text}'", "prompt.document='the word of:{text}'")


def test_what_the_tokenizer_finds_if_it_is_worth_sharing() -> None:
    config = asked(*LETTERS)
    found = prefix_tokens(build(config.prompt), tokenizer=of_letters(config), shares_prefix=True)
    assert found == {"query": 0, "document": 10}, "7 tokens are below the least, 8"
    assert prefix_note(found) == "the first 10 tokens of each document are computed once a pass"


def test_a_model_that_shares_none() -> None:
    config = asked(*LETTERS)
    found = prefix_tokens(build(config.prompt), tokenizer=of_letters(config), shares_prefix=False)
    assert found == NOTHING
    assert prefix_note(NOTHING) == ""


@pytest.mark.parametrize(
    ("prompt", "is_known"),
    [
        ("none", True), ("repllama", True), ("prompteol", True),
        ("promptreps", False), ("repllama_vl", False), ("e5_instruct", False),
    ],
)  # fmt: skip
def test_without_a_tokenizer_a_long_prompt_is_not_known(prompt: str, is_known: bool) -> None:
    found = prefix_tokens(
        build(asked(f"prompt={prompt}").prompt), tokenizer=None, shares_prefix=True
    )
    assert found == (NOTHING if is_known else None)
    assert ("not taken off" in prefix_note(found)) == (not is_known)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), True),
        (("model=qwen-vl",), True),
        (("model=qwen-r1",), True),
        (("model/pooling=mean",), False),
        (("model.is_causal=false",), False),
        (("model.is_causal=null",), True),
    ],
)
def test_models_that_share_a_prefix(overrides: tuple[str, ...], expected: bool) -> None:
    assert planned_model(build(asked(*overrides).model)).shares_prefix == expected
