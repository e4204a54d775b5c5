"""Encoding with both shortcuts == every token of every text through every layer.

The shortcuts: the shared prefix goes through the model once, and the last layer computes pooled
tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedTokenizerBase

from helpers.architectures import tiny_trunk
from helpers.models import letter_tokenizer, tiny_qwen
from helpers.prompts import NAMES, prompt, promptreps
from helpers.replicas import VARIANTS, replica
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.models.backbones.huggingface import load_backbone, load_tokenizer
from quarry.models.bi_encoder import BiEncoder
from quarry.models.pooling.base import Pooling
from quarry.models.pooling.cls import Cls
from quarry.models.pooling.echo import Echo
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.max import Max
from quarry.models.pooling.mean import Mean
from quarry.models.pooling.mean_sqrt_len import MeanSqrtLen
from quarry.models.pooling.weighted_mean import WeightedMean
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.pass_prefix import MIN_SHARED_TOKENS
from quarry.types import ROLES, Document, Query, Role, TokenBatch

TOLERANCE = 1e-5
"""fp32 sums in another order; embeddings have length 1."""

TEXTS = ["a brown fox", "", "x", ' "(quoted)\n', "é中 7", "the query of the retrieval task " * 12]
MIN_BF16_COSINE = 0.999
"""What packed batches are held to in bf16, see tests/gpu/test_packed_cuda.py."""


@dataclass(frozen=True)
class Pass:
    """One pass of a batch through the backbone, and which shortcuts it took."""

    num_tokens: int
    is_shared: bool
    is_pooled: bool


@contextmanager
def watched(model: BiEncoder) -> Iterator[list[Pass]]:
    """Record the passes of batches; those of the prefix itself are left out."""
    passes: list[Pass] = []
    token_states = model.token_states

    def recorded(tokens: TokenBatch, **more: Any) -> Tensor:
        if "prefix_states" not in more:
            passes.append(Pass(tokens.num_tokens, "key_rows" in more, "pooled_rows" in more))
        return token_states(tokens, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "token_states", recorded)
        yield passes


@contextmanager
def without_shortcuts(model: BiEncoder) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "encode_prefix", lambda tokens: None)
        patch.setattr(model, "pools_in_last_layer", False)
        yield


def items(texts: Sequence[str], role: Role) -> list[Query | Document]:
    """The texts; of documents every other one has a title."""
    if role == "query":
        return [Query(query_id=str(i), text=text) for i, text in enumerate(texts)]
    return [
        Document(document_id=str(i), text=text, title="Foxes" * (i % 2))
        for i, text in enumerate(texts)
    ]


def encoder_of(
    model: BiEncoder, tokenizer: TextTokenizer, *, max_tokens_per_batch: int = 1_000
) -> Encoder:
    return Encoder(model=model, tokenizer=tokenizer, max_tokens_per_batch=max_tokens_per_batch)


def plain(encoder: Encoder, given: Sequence[Query | Document], role: Role) -> Tensor:
    """The embeddings without shortcuts."""
    with without_shortcuts(encoder.model), watched(encoder.model) as passes:
        found = encoder.encode(given, role)
    assert not any(one.is_shared or one.is_pooled for one in passes)
    return found


def alone(encoder: Encoder, given: Sequence[Query | Document], role: Role) -> Tensor:
    """The embeddings without shortcuts, one text in a pass."""
    single = encoder_of(encoder.model, encoder.tokenizer, max_tokens_per_batch=1)
    return plain(single, given, role)


def check(encoder: Encoder, given: Sequence[Query | Document], role: Role) -> list[Pass]:
    """Compare the embeddings with those without shortcuts; return the passes that made them."""
    expected = alone(encoder, given, role)
    with watched(encoder.model) as passes:
        found = encoder.encode(given, role)
    assert (found - expected).abs().max() <= TOLERANCE
    return passes


@dataclass(frozen=True)
class Replica:
    folder: str
    tokenizer: PreTrainedTokenizerBase
    model: BiEncoder

    def encoder(self, asked: Prompt, model: BiEncoder | None = None) -> Encoder:
        tokenizer = TextTokenizer(tokenizer=self.tokenizer, prompt=asked)
        return encoder_of(self.model if model is None else model, tokenizer)

    def model_of(
        self, pooling: Pooling, *, dtype: torch.dtype = torch.float32, **more: Any
    ) -> BiEncoder:
        backbone = load_backbone(self.folder, dtype=dtype)
        return BiEncoder(backbone=backbone, pooling=pooling, **more).eval()


@pytest.fixture(scope="module")
def replica_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Replica]:
    """Name -> the replica, which all tests share."""
    made: dict[str, Replica] = {}
    cache = tmp_path_factory.getbasetemp() / "replicas"

    def get(name: str) -> Replica:
        if name not in made:
            folder = str(replica(name, cache).folder())
            backbone = load_backbone(folder, dtype=torch.float32)
            model = BiEncoder(backbone=backbone, pooling=LastToken()).eval()
            made[name] = Replica(folder, load_tokenizer(folder), model)
        return made[name]

    return get


def prompt_of(name: str, model: str) -> Prompt:
    """A prompt of conf/prompt; DeepSeek-R1 lacks <|endoftext|> and gets its own end token."""
    found = prompt(name)
    return replace(found, end_token="auto") if model == "qwen-r1" and found.end_token else found


@pytest.mark.parametrize("prompt_name", NAMES)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_prompt_with_each_of_the_eight_models(
    name: str, prompt_name: str, replica_of: Callable[[str], Replica]
) -> None:
    encoder = replica_of(name).encoder(prompt_of(prompt_name, name))
    for role in ROLES:
        num_shared = len(encoder.tokenizer.shared_prefixes[role])
        assert (num_shared > 0) == bool(encoder.tokenizer.frames[role].literals[0])
        passes = check(encoder, items(TEXTS, role), role)
        assert all(one.is_pooled for one in passes)
        # the first pass that could share a prefix is a check of the device, and not shared
        assert any(one.is_shared for one in passes) == (num_shared >= MIN_SHARED_TOKENS)


@pytest.mark.parametrize(
    ("pooling", "is_causal", "is_pooled"),
    [
        (Mean(), True, False),
        (Mean(include_prompt=False), True, False),
        (WeightedMean(), True, False),
        (MeanSqrtLen(), True, False),
        (Max(), True, False),
        (Cls(), True, False),
        (Mean(), False, False),
        (LastToken(), False, True),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else type(value).__name__,
)
def test_other_poolings_and_bidirectional_attention_share_no_prefix(
    pooling: Pooling, is_causal: bool, is_pooled: bool, replica_of: Callable[[str], Replica]
) -> None:
    found = replica_of("qwen-instruct")
    encoder = found.encoder(promptreps(), found.model_of(pooling, is_causal=is_causal))
    for role in ROLES:
        passes = check(encoder, items(TEXTS, role), role)
        assert not any(one.is_shared for one in passes)
        assert {one.is_pooled for one in passes} == {is_pooled}


@pytest.mark.parametrize("is_causal", [True, False])
def test_echo_takes_no_shortcut(is_causal: bool, replica_of: Callable[[str], Replica]) -> None:
    found = replica_of("qwen-base")
    encoder = found.encoder(prompt("echo"), found.model_of(Echo(), is_causal=is_causal))
    for role in ROLES:
        assert len(encoder.tokenizer.shared_prefixes[role]) >= MIN_SHARED_TOKENS
        passes = check(encoder, items(TEXTS, role), role)
        assert not any(one.is_shared or one.is_pooled for one in passes)


SLIDING, FULL = "sliding_attention", "full_attention"
IN_LETTERS = Prompt(document="the wordof:{text}")


@pytest.mark.parametrize(
    ("layer_types", "is_pooled"),
    [([SLIDING, SLIDING], False), ([FULL, SLIDING], False), ([SLIDING, FULL], True)],
)
def test_sliding_windows_share_no_prefix(layer_types: list[str], is_pooled: bool) -> None:
    """In one layer are enough; the last layer is free where it has none itself."""
    backbone = tiny_qwen(use_sliding_window=True, sliding_window=5, layer_types=layer_types)
    encoder = in_letters(backbone)
    passes = check(encoder, items(LETTERS, "document"), "document")
    assert not any(one.is_shared for one in passes)
    assert {one.is_pooled for one in passes} == {is_pooled}


def test_sliding_windows_of_a_family_without_layer_types() -> None:
    backbone = tiny_trunk("mistral", sliding_window=5, num_key_value_heads=2)
    passes = check(in_letters(backbone), items(LETTERS, "document"), "document")
    assert not any(one.is_shared or one.is_pooled for one in passes)


def test_weights_in_shards_share_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """All ranks have to run as many passes."""
    monkeypatch.setattr(Encoder, "has_equal_steps", True)
    passes = check(in_letters(), items(LETTERS, "document"), "document")
    assert not any(one.is_shared for one in passes)


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


@pytest.mark.parametrize("name", VARIANTS)
def test_bf16_is_as_close_to_single_texts_as_a_packed_batch_is(
    name: str, replica_of: Callable[[str], Replica]
) -> None:
    found = replica_of(name)
    model = found.model_of(LastToken(), dtype=torch.bfloat16)
    encoder = found.encoder(promptreps(), model)
    for role in ROLES:
        given = items(TEXTS, role)
        single = alone(encoder, given, role)
        packed = cosine_similarity(plain(encoder, given, role), single).min()
        with watched(model) as passes:
            shared = cosine_similarity(encoder.encode(given, role), single).min()
        assert any(one.is_shared for one in passes)
        assert packed > MIN_BF16_COSINE
        assert shared > MIN_BF16_COSINE
