"""A contrastive batch by hand: queries first, then each query's positive and hard negatives."""

from __future__ import annotations

import pickle
from dataclasses import replace
from math import nan

import pytest
import torch
from torch import Tensor

from helpers.joint_training import TOKENIZER, examples
from helpers.models import EOS, letter_ids, letter_tokenizer
from quarry.data.collation import RetrievalCollator
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.data.train_dataset import TrainDataset
from quarry.runtime.text_hash import text_hash
from quarry.types import Document, Query, RetrievalBatch, TrainExample


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


def test_examples_with_different_numbers_of_hard_negatives(collator: RetrievalCollator) -> None:
    batch = collator([example("a", "b"), example("c", "d", "e", "f"), example("g", "h", "d")])
    texts = ["Q:a", "Q:c", "Q:g", "b", "d", "e", "f", "h", "d"]
    rows = [[*letter_ids(text), EOS] for text in texts]
    assert batch.tokens.input_ids.tolist() == [i for row in rows for i in row]
    assert (batch.num_queries, batch.num_passages) == (3, 6)
    assert batch.positive_index.tolist() == [0, 1, 4]
    assert batch.positive_index.dtype == torch.int64
    assert batch.hashes is not None
    of_a, of_c, of_g = (text_hash(text) for text in "acg")
    assert batch.hashes.queries.tolist() == [of_a, of_c, of_g]
    assert batch.hashes.passages.tolist() == [text_hash(text) for text in "bdefhd"]
    assert batch.hashes.answered.tolist() == [of_a, of_c, 0, 0, of_g, 0]
    assert batch.scores is None


def scored(one: TrainExample, positive: float | None, *others: float) -> TrainExample:
    return replace(
        one,
        positive_scores=None if positive is None else (positive,),
        hard_negative_scores=others or None,
    )


def test_scores_lie_as_the_passages_do(collator: RetrievalCollator) -> None:
    batch = collator(
        [
            scored(example("a", "b", "c", "d"), 0.5, 0.1, -3),
            example("e", "f", "g"),
            scored(example("h", "i"), 7),
            scored(example("j", "k", "l"), None, 0.25),
        ]
    )
    assert batch.scores is not None
    assert batch.scores.dtype == torch.float32
    expected = torch.tensor([0.5, 0.1, -3, nan, nan, 7, nan, 0.25])
    torch.testing.assert_close(batch.scores, expected, rtol=0, atol=0, equal_nan=True)
    assert len(batch.scores) == batch.num_passages


def test_batches_are_the_same_behind_the_pickles_of_workers() -> None:
    """Workers get data set and collator as pickles, and hand batches back so."""
    dataset = TrainDataset(examples(20, is_ragged=True), num_hard_negatives=None, seed=1)
    collate = RetrievalCollator(TOKENIZER)
    other_dataset, other_collate = pickle.loads(pickle.dumps((dataset, collate)))
    for epoch in range(2):
        keys = [(epoch, i) for i in (3, 0, 11, 6)]
        expected = collate([dataset[key] for key in keys])
        sent = other_collate([other_dataset[key] for key in keys])
        found: RetrievalBatch = pickle.loads(pickle.dumps(sent))
        assert found.scores is not None
        assert expected.scores is not None
        assert torch.equal(found.scores, expected.scores)
        assert torch.equal(found.positive_index, expected.positive_index)
        assert torch.equal(found.tokens.input_ids, expected.tokens.input_ids)


def test_without_any_score_there_are_none(collator: RetrievalCollator) -> None:
    assert collator([example("a", "b", "c")]).scores is None
    assert collator([scored(example("a", "b", "c"), nan, nan)]).scores is None


def test_scores_move_and_are_pinned_with_the_batch(
    collator: RetrievalCollator, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = collator([scored(example("a", "b", "c"), 2, 1)])
    moved = batch.to("meta")
    assert moved.scores is not None
    assert moved.scores.device == torch.device("meta")
    pinned: list[Tensor] = []

    def pin(tensor: Tensor) -> Tensor:  # without CUDA there is nothing to pin for
        pinned.append(tensor)
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    assert batch.pin_memory().scores is batch.scores
    assert any(tensor is batch.scores for tensor in pinned)
    assert collator([example("a", "b")]).pin_memory().scores is None
