"""Encoding with both shortcuts == every token of every text through every layer: inputs.

The shortcuts: the shared prefix goes through the model once, and the last layer computes pooled
tokens alone.
"""

from __future__ import annotations

from typing import Any

import pytest

from helpers.architectures import tiny_backbone
from helpers.encoding_shortcuts import Pass, check, encoder_of
from helpers.models import letter_tokenizer, tiny_qwen
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.last_token import LastToken
from quarry.retrieval.encoder import Encoder
from quarry.types import Document, Query

SLIDING, FULL = "sliding_attention", "full_attention"
IN_LETTERS = Prompt(document="the wordof:{text}")
LETTERS = ["kl", "", "k" * 40, "of", "thewordof:kl"]


def in_letters(
    backbone: Any = None, *, asked: Prompt = IN_LETTERS, max_tokens_per_batch: int = 1_000
) -> Encoder:
    """A tiny model and a token a letter: the prefix has 10, and no text merges with it."""
    model = BiEncoder(backbone=backbone or tiny_qwen(), pooling=LastToken()).eval()
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=asked)
    return encoder_of(model, tokenizer, max_tokens_per_batch=max_tokens_per_batch)


def documents(*texts: str) -> list[Query | Document]:
    return [Document(document_id=str(i), text=text) for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("layer_types", "is_pooled"),
    [([SLIDING, SLIDING], False), ([FULL, SLIDING], False), ([SLIDING, FULL], True)],
)
def test_sliding_windows_share_no_prefix(layer_types: list[str], is_pooled: bool) -> None:
    """A window in one layer is enough; the last layer is pooled where it has none itself."""
    backbone = tiny_qwen(use_sliding_window=True, sliding_window=5, layer_types=layer_types)
    encoder = in_letters(backbone)
    passes = check(encoder, documents(*LETTERS), "document")
    assert not any(one.is_shared for one in passes)
    assert {one.is_pooled for one in passes} == {is_pooled}


def test_sliding_windows_of_a_family_without_layer_types() -> None:
    backbone = tiny_backbone("mistral", sliding_window=5, num_key_value_heads=2)
    passes = check(in_letters(backbone), documents(*LETTERS), "document")
    assert not any(one.is_shared or one.is_pooled for one in passes)


def test_weights_in_shards_share_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """All ranks have to run as many passes."""
    monkeypatch.setattr(Encoder, "has_equal_steps", True)
    passes = check(in_letters(), documents(*LETTERS), "document")
    assert not any(one.is_shared for one in passes)


@pytest.mark.parametrize(
    "texts",
    [["kl"], [""], ["", ""], ["k" * 40], LETTERS, ["kl"] * 4],
    ids=["one text", "an empty text", "empty texts", "a long text", "mixed", "equal texts"],
)
@pytest.mark.parametrize("max_tokens", [1, 9, 1_000])
def test_texts_and_budgets(texts: list[str], max_tokens: int) -> None:
    """Of the budgets the first two are smaller than the prefix."""
    encoder = in_letters(max_tokens_per_batch=max_tokens)
    assert len(encoder.tokenizer.shared_prefixes["document"]) == 10
    passes = check(encoder, documents(*texts), "document")
    batches = passes[2:]  # after the check of the device
    assert len(batches) == (1 if max_tokens == 1_000 else len(texts))
    assert all(one.is_shared for one in batches)
    assert sum(one.num_tokens for one in batches) == sum(len(text) + 1 for text in texts)


@pytest.mark.parametrize("prefix", ["thewordof:kl", "thewordof:klmn"])
@pytest.mark.parametrize("max_tokens", [1, 30, 1_000])
def test_texts_that_have_no_token_behind_the_prefix(prefix: str, max_tokens: int) -> None:
    """Shorter than the shared part, equal to it, or not beginning with it."""
    encoder = in_letters(asked=Prompt(end_token=None), max_tokens_per_batch=max_tokens)
    ids = encoder.tokenizer(documents(prefix), "document")[0].ids
    encoder.tokenizer.shared_prefixes = {"query": ids[:0], "document": ids}
    texts = ["thewordof", prefix, prefix + "m", prefix + "k" * 30, "x" + prefix, "t"]
    passes = check(encoder, documents(*texts), "document")[2:]
    num_shared = 2 if max_tokens == 1 else 1 if max_tokens == 30 else 0
    assert sum(one.is_shared for one in passes) == num_shared


def test_equal_texts_that_share_all_tokens_but_the_last() -> None:
    encoder = in_letters()
    ids = encoder.tokenizer(documents("kl"), "document")[0].ids
    encoder.tokenizer.shared_prefixes = {"query": ids[:0], "document": ids[:-1]}
    assert check(encoder, documents("kl", "kl", "kl"), "document")[2:] == [Pass(3, True, True)]


@pytest.mark.parametrize(
    "template", ["{text}", "{text} the word of it is", "tothis:{text}"], ids=["none", "after", "7"]
)
def test_prompts_without_a_prefix_that_is_worth_it(template: str) -> None:
    encoder = in_letters(asked=Prompt(document=template))
    passes = check(encoder, documents(*LETTERS), "document")
    assert len(passes) == 1
    assert not passes[0].is_shared
