"""A contrast set by hand: queries first, then each query's positive and hard negatives."""

from __future__ import annotations

import pytest
import torch

from helpers.models import EOS, letter_ids, letter_tokenizer
from quarry.data.collation import RetrievalCollator, text_hash
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.types import Document, Query, TrainExample


def example(query: str, positive: str, *hard_negatives: str) -> TrainExample:
    return TrainExample(
        query=Query(query_id=query, text=query),
        positives=(Document(document_id=positive, text=positive),),
        hard_negatives=tuple(Document(document_id=text, text=text) for text in hard_negatives),
    )


@pytest.fixture
def collator() -> RetrievalCollator:
    prompt = Prompt(query="Q:{text}", max_query_length=5, max_document_length=3)
    return RetrievalCollator(TextTokenizer(tokenizer=letter_tokenizer(), prompt=prompt))


def test_queries_then_passages_grouped_by_query(collator: RetrievalCollator) -> None:
    batch = collator([example("a", "b", "c", "d"), example("efg", "hij", "", "k")])
    texts = ["Q:a", "Q:ef", "b", "c", "d", "hi", "", "k"]
    rows = [[*letter_ids(text), EOS] for text in texts]
    assert batch.tokens.input_ids.tolist() == [i for row in rows for i in row]
    assert batch.tokens.cu_seqlens.diff().tolist() == [len(row) for row in rows]
    assert (batch.num_queries, batch.num_passages) == (2, 6)
    assert batch.positive_index.tolist() == [0, 3]


def test_without_hard_negatives(collator: RetrievalCollator) -> None:
    batch = collator([example("a", "b"), example("c", "d"), example("e", "f")])
    assert (batch.num_queries, batch.num_passages) == (3, 3)
    assert batch.positive_index.tolist() == [0, 1, 2]


def test_hashes_tell_which_texts_are_equal(collator: RetrievalCollator) -> None:
    batch = collator([example("a", "b", "c"), example("a", "c", "a"), example("d", "b", "d")])
    assert batch.hashes is not None
    queries, passages = batch.hashes.queries.tolist(), batch.hashes.passages.tolist()
    assert queries[0] == queries[1] != queries[2]
    numbers = {value: number for number, value in enumerate(dict.fromkeys(passages))}
    assert [numbers[value] for value in passages] == [0, 1, 1, 2, 0, 3]
    answered = [queries[0], 0, queries[1], 0, queries[2], 0]
    assert batch.hashes.answered.tolist() == answered
    assert batch.hashes.passages.dtype == torch.int64


def test_a_hash_is_that_of_title_and_text_and_the_same_everywhere() -> None:
    # printf 'read a line' | b2sum -l 64
    assert text_hash("read a line") == 0x7102D0246515B794


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ({}, [0, 0, 1, 2, 3, 4]),
        ({"strip": True}, [0, 0, 1, 2, 0, 2]),
        ({"document": "P:{title} {text}"}, [0, 0, 1, 2, 3, 4]),
        ({"document": "P:{title} {text}", "strip": True}, [0, 0, 1, 2, 0, 2]),
    ],
)
def test_equal_are_the_texts_that_are_encoded_alike(settings: dict, numbers: list[int]) -> None:
    """With `{title} {text}` an untitled "b c" is not the document of title b and text c."""
    documents = [
        Document(document_id="titled", title="b", text="c"),
        Document(document_id="again", title="b", text="c"),
        Document(document_id="wide", text="b  c"),
        Document(document_id="untitled", text="c"),
        Document(document_id="outer", title=" b\n", text=" c "),
        Document(document_id="outer untitled", title=" ", text=" c"),
    ]
    tokenizer = TextTokenizer(tokenizer=letter_tokenizer(), prompt=Prompt(**settings))
    collate = RetrievalCollator(tokenizer)
    batch = collate(
        [
            TrainExample(query=Query(query_id=str(i), text=" a" * (i % 2)), positives=(document,))
            for i, document in enumerate(documents)
        ]
    )
    assert batch.hashes is not None
    first = {
        value: number for number, value in enumerate(dict.fromkeys(batch.hashes.passages.tolist()))
    }
    assert [first[value] for value in batch.hashes.passages.tolist()] == numbers


def test_examples_of_unequal_size_are_our_own_mistake(collator: RetrievalCollator) -> None:
    with pytest.raises(AssertionError, match="group size"):
        collator([example("a", "b"), example("c", "d", "e")])
