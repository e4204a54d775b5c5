"""Positions, widths and rows of models that are made of their configuration alone."""

from __future__ import annotations

import logging

import pytest
from transformers import (
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    MPNetConfig,
    PretrainedConfig,
    Qwen2Config,
    RobertaConfig,
    XLMRobertaConfig,
)

from helpers.models import letter_tokenizer
from quarry.errors import UserError
from quarry.models.limits import (
    check_lengths,
    check_vocabulary,
    check_width,
    is_decoder,
    num_positions,
)

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
    "num_attention_heads": 4, "max_position_embeddings": 40,
}  # fmt: skip
BERT, QWEN = BertConfig(**SHAPE), Qwen2Config(**SHAPE, num_key_value_heads=2)
ROBERTA = RobertaConfig(**SHAPE, pad_token_id=1)
DISTILBERT = DistilBertConfig(
    vocab_size=64, dim=32, hidden_dim=48, n_layers=1, n_heads=4, max_position_embeddings=40
)
GPT2 = GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4, n_positions=40)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (BERT, 40),
        (DISTILBERT, 40),
        (GPT2, 40),
        (ROBERTA, 38),  # the first two rows are no positions of texts: padding is 1
        (XLMRobertaConfig(**SHAPE, pad_token_id=1), 38),
        (RobertaConfig(**SHAPE, pad_token_id=0), 39),
        (MPNetConfig(**SHAPE, pad_token_id=1), 38),
        (QWEN, None),
    ],
)
def test_positions_in_a_table(config: PretrainedConfig, expected: int | None) -> None:
    assert num_positions(config) == expected


@pytest.mark.parametrize(
    ("config", "expected"), [(BERT, False), (ROBERTA, False), (QWEN, True), (GPT2, True)]
)
def test_decoders(config: PretrainedConfig, expected: bool) -> None:
    assert is_decoder(config) is expected


@pytest.mark.parametrize(("config", "room"), [(BERT, 40), (ROBERTA, 38)])
def test_texts_beyond_the_table_are_refused_all_keys_at_once(
    config: PretrainedConfig, room: int
) -> None:
    check_lengths(config, {"prompt.max_query_length": room}, source="DIR")
    lengths = {
        "prompt.max_query_length": room + 1,
        "prompt.max_document_length": 512,
        "other": room,
    }
    with pytest.raises(UserError) as caught:
        check_lengths(config, lengths, source="DIR")
    message = str(caught.value)
    assert f"prompt.max_query_length: texts of up to {room + 1} tokens" in message
    assert f"DIR has positions for {room} " in message
    assert f"prompt.max_query_length={room} prompt.max_document_length={room}" in message
    assert "other" not in message


def test_texts_beyond_what_was_trained_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_lengths(QWEN, {"prompt.max_query_length": 40}, source="DIR")
        assert caplog.messages == []
        check_lengths(QWEN, {"prompt.max_query_length": 41}, source="DIR")
    (message,) = caplog.messages
    assert "prompt.max_query_length: texts of up to 41 tokens" in message
    assert "DIR names 40 positions" in message


@pytest.mark.parametrize("config", [BERT, DISTILBERT, GPT2, QWEN])
def test_a_width_is_that_of_the_states(config: PretrainedConfig) -> None:
    check_width(config, 32, where="FILE")
    with pytest.raises(UserError, match=r"FILE: .* 48, .* 32 \(config\.json, hidden_size\)"):
        check_width(config, 48, where="FILE")


def test_a_token_without_a_row_is_refused() -> None:
    tokenizer = letter_tokenizer()
    check_vocabulary(BERT, tokenizer, source="DIR")
    tokenizer.add_tokens([f"<{i}>" for i in range(64 - len(tokenizer))])
    check_vocabulary(BERT, tokenizer, source="DIR")
    tokenizer.add_tokens(["<one more>"])
    with pytest.raises(UserError, match=r"'<one more>' with id 64, .*DIR has 64 rows.*vocab_size"):
        check_vocabulary(BERT, tokenizer, source="DIR")
