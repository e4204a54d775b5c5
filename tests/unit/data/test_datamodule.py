"""The wiring of the training data: batches that follow from seed and epoch, workers or none."""

from __future__ import annotations

import pytest
import torch

from helpers.models import letter_ids, letter_tokenizer
from quarry.data.datamodule import RetrievalDataModule, one_empty_batch
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.types import Document, Query, RetrievalBatch, TrainExample

LETTERS = "abcdefghijklm"


def examples() -> list[TrainExample]:
    """Thirteen: the query "a" has the positive "A" and the hard negatives "BCD", "CDE", "DEF"."""
    return [
        TrainExample(
            query=Query(query_id=letter, text=letter),
            positives=(Document(document_id=letter.upper(), text=letter.upper()),),
            hard_negatives=tuple(
                Document(document_id=f"{letter}{i}", text=chr(ord(letter.upper()) + i) * 2)
                for i in (1, 2, 3)
            ),
        )
        for letter in LETTERS
    ]


def datamodule(*, num_workers: int = 0, seed: int = 0, **more: int) -> RetrievalDataModule:
    settings = {
        "num_hard_negatives": 1,
        "num_queries_per_update": 6,
        "num_contrast_queries": 3,
    } | more
    return RetrievalDataModule(
        examples=examples(),
        tokenizer=TextTokenizer(tokenizer=letter_tokenizer(), prompt=Prompt()),
        num_workers=num_workers,
        seed=seed,
        **settings,
    )


def token_ids(batches: list[RetrievalBatch]) -> list[list[int]]:
    return [batch.tokens.input_ids.tolist() for batch in batches]


def test_batches_are_contrast_sets_and_updates_are_whole() -> None:
    module = datamodule()
    batches = list(module.train_dataloader())
    assert module.num_batches_per_update == 2
    assert len(batches) == len(module.train_dataloader()) == 4  # 12 of the 13 examples
    seen = set()
    for batch in batches:
        assert (batch.num_queries, batch.num_passages) == (3, 6)
        texts = batch.tokens.input_ids.split(batch.tokens.cu_seqlens.diff().tolist())
        queries, passages = texts[:3], texts[3:]
        for query, row in zip(queries, batch.positive_index.tolist(), strict=True):
            letter = next(x for x in LETTERS if letter_ids(x) == query[:-1].tolist())
            assert passages[row][:-1].tolist() == letter_ids(letter.upper())
            start = ord(letter.upper())
            negatives = [letter_ids(chr(start + i) * 2) for i in (1, 2, 3)]
            assert passages[row + 1][:-1].tolist() in negatives
            seen.add(letter)
    assert len(seen) == 12


def test_batches_follow_from_the_seed_and_the_epoch() -> None:
    module = datamodule()
    module.sampler.set_epoch(1)
    list(module.train_dataloader())  # what was read before must not matter
    module.sampler.set_epoch(0)
    first = token_ids(list(module.train_dataloader()))
    assert first == token_ids(list(datamodule().train_dataloader()))
    assert first != token_ids(list(datamodule(seed=1).train_dataloader()))
    module.sampler.set_epoch(1)
    assert first != token_ids(list(module.train_dataloader()))


@pytest.mark.parametrize(
    ("max_epochs", "max_steps", "expected"),
    [(3, -1, 6), (3, 4, 4), (3, 100, 6), (None, 5, 5), (-1, 5, 5), (0, -1, 0)],
)
def test_number_of_updates(max_epochs: int | None, max_steps: int, expected: int) -> None:
    module = datamodule()  # two updates an epoch
    assert module.num_training_steps(max_epochs=max_epochs, max_steps=max_steps) == expected


@pytest.mark.slow  # each worker reads the tests anew
def test_workers_prepare_the_same_batches() -> None:
    with_workers = list(datamodule(num_workers=2).train_dataloader())
    assert token_ids(with_workers) == token_ids(list(datamodule().train_dataloader()))


def test_too_few_examples_are_refused_when_the_module_is_made() -> None:
    with pytest.raises(UserError, match="has 13 examples and one update needs 14"):
        datamodule(num_queries_per_update=14, num_contrast_queries=7)


def test_more_hard_negatives_than_there_are_repeat() -> None:
    batch = next(iter(datamodule(num_hard_negatives=5).train_dataloader()))
    assert batch.num_passages == 3 * 6
    assert batch.positive_index.tolist() == [0, 6, 12]


def test_a_batch_moves_to_a_device_as_a_whole() -> None:
    batch = next(iter(datamodule().train_dataloader())).to("meta")
    assert batch.hashes is not None
    tensors = [batch.positive_index, batch.tokens.input_ids, batch.tokens.position_ids]
    tensors += [batch.hashes.queries, batch.hashes.passages, batch.hashes.answered]
    assert {t.device for t in [*tensors, batch.tokens.cu_seqlens]} == {torch.device("meta")}


def test_a_test_run_has_one_batch() -> None:
    assert len(one_empty_batch()) == 1
