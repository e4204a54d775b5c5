"""The golden texts never change, and are encoded one by one as any other text is."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch

from helpers.models import letter_tokenizer, tiny_bi_encoder
from helpers.tokenizers import chat_tokenizer
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.retrieval.encoder import Encoder
from quarry.retrieval.golden_texts import (
    GOLDEN,
    golden_cosines,
    golden_embeddings,
    golden_token_ids,
    name_of,
    role_of,
)
from quarry.types import Query

PROMPT = Prompt(query="Q:{text}", document="P:{title} {text}", max_document_length=40)


def test_they_are_the_ones_that_saved_models_hold_vectors_of() -> None:
    digest = hashlib.sha256(repr(GOLDEN).encode()).hexdigest()
    assert digest[:16] == "340dcdf4380e2d88"


def test_three_queries_and_five_documents_of_distinct_names() -> None:
    assert [role_of(item) for item in GOLDEN] == ["query"] * 3 + ["document"] * 5
    assert len({name_of(item) for item in GOLDEN}) == len(GOLDEN) == 8


def test_the_long_one_is_longer_than_any_length() -> None:
    assert len(chat_tokenizer()(GOLDEN[-1].text)["input_ids"]) > 8192


def test_embeddings_are_those_of_the_encoder() -> None:
    model = tiny_bi_encoder()
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=PROMPT)
    encoder = Encoder(model=model, tokenizer=tokenizer, max_tokens_per_batch=100)
    queries = [item for item in GOLDEN if isinstance(item, Query)]
    documents = [item for item in GOLDEN if not isinstance(item, Query)]
    expected = [encoder.encode(queries, "query"), encoder.encode(documents, "document")]
    found = golden_embeddings(model, tokenizer)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=0)


def test_the_model_stays_in_its_mode_and_dropout_is_off() -> None:
    model = tiny_bi_encoder()
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=PROMPT)
    expected = golden_embeddings(model, tokenizer)
    model.train()
    model.backbone.layers[0].self_attn.attention_dropout = 0.9
    assert torch.equal(golden_embeddings(model, tokenizer), expected)
    assert model.training


def test_token_ids_are_those_of_the_tokenizer() -> None:
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=PROMPT)
    ids = golden_token_ids(tokenizer)
    assert [len(row) for row in ids][-1] == 40
    assert ids[0] == tokenizer([GOLDEN[0]], "query")[0].ids.tolist()
    assert all(type(token) is int for row in ids for token in row)


def test_cosines() -> None:
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [math.nan, 0.0]])
    others = torch.tensor([[1.0, 0.0], [4.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    found = golden_cosines(embeddings, others).tolist()
    assert found[:3] == pytest.approx([1.0, 0.0, math.sqrt(0.5)])
    assert math.isnan(found[3])
