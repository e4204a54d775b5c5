"""Queries that are longer than the model reads are told of."""

from __future__ import annotations

import pytest

from helpers.models import letter_tokenizer
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.search.truncation import is_truncated, warn_of_truncation


@pytest.mark.parametrize("template", ["{text}", "query: {text} end"])
@pytest.mark.parametrize("length_counts", ["all", "text"])
def test_only_truncated_queries_count(
    template: str, length_counts: str, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = Prompt(
        query=template, document="{text}", max_query_length=24, length_counts=length_counts
    )
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=prompt)
    assert not is_truncated(tokenizer, "abc")
    assert is_truncated(tokenizer, "a b c d e f g h " * 6000)
    warn_of_truncation(tokenizer, ["abc", "ab"])
    assert caplog.text == ""
    warn_of_truncation(tokenizer, ["abc", "abcd efgh " * 10_000])
    assert "1 of 2 queries" in caplog.text
    assert "100000 characters" in caplog.text
