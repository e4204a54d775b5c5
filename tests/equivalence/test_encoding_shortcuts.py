"""Encoding with both shortcuts == every token of every text through every layer.

The shortcuts: the shared prefix goes through the model once, and the last layer computes pooled
tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedTokenizerBase

from helpers.encoding_shortcuts import alone, check, encoder_of, plain, watched
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
from quarry.types import ROLES, Document, Query, Role

TEXTS = ["a brown fox", "", "x", ' "(quoted)\n', "é中 7", "the query of the retrieval task " * 12]
MIN_BF16_COSINE = 0.999
"""What packed batches are held to in bf16, see tests/gpu/test_packed_cuda.py."""


def items(texts: Sequence[str], role: Role) -> list[Query | Document]:
    """The texts; of documents every other one has a title."""
    if role == "query":
        return [Query(query_id=str(i), text=text) for i, text in enumerate(texts)]
    return [
        Document(document_id=str(i), text=text, title="Foxes" * (i % 2))
        for i, text in enumerate(texts)
    ]


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
