"""The wiring of the training data: batches that follow from seed and epoch, workers or none."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import pytest
import torch

from helpers.models import letter_ids, letter_tokenizer
from quarry.data.datamodule import RetrievalDataModule, one_empty_batch
from quarry.data.prompts import Prompt
from quarry.data.tokenization import TextTokenizer
from quarry.errors import UserError
from quarry.types import Document, Query, RetrievalBatch, TrainExample

LETTERS = "abcdefghijklm"


def examples(num_hard: tuple[int, ...] = (3,)) -> list[TrainExample]:
    """Thirteen: the query "a" has the positive "A" and the hard negatives "BB", "CC", "DD".

    Args:
        num_hard: of their hard negatives the examples have as many, in turn.
    """
    return [
        TrainExample(
            query=Query(query_id=letter, text=letter),
            positives=(Document(document_id=letter.upper(), text=letter.upper()),),
            hard_negatives=tuple(
                Document(document_id=f"{letter}{i}", text=chr(ord(letter.upper()) + i) * 2)
                for i in (1, 2, 3)[: num_hard[number % len(num_hard)]]
            ),
        )
        for number, letter in enumerate(LETTERS)
    ]


def datamodule(
    *,
    num_workers: int = 0,
    seed: int = 0,
    num_hard: tuple[int, ...] = (3,),
    **more: int | None,
) -> RetrievalDataModule:
    settings: dict[str, Any] = {
        "num_hard_negatives": 1,
        "global_batch_size": 6,
        "contrastive_batch_size": 3,
    } | more
    return RetrievalDataModule(
        examples=examples(num_hard),
        tokenizer=TextTokenizer(tokenizer=letter_tokenizer(), prompt=Prompt()),
        num_workers=num_workers,
        seed=seed,
        **settings,
    )


def token_ids(batches: list[RetrievalBatch]) -> list[list[int]]:
    return [batch.tokens.input_ids.tolist() for batch in batches]


def test_batches_are_contrastive_batches_and_steps_are_whole() -> None:
    module = datamodule()
    batches = list(module.train_dataloader())
    assert module.num_batches_per_step == 2
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
def test_number_of_steps(max_epochs: int | None, max_steps: int, expected: int) -> None:
    module = datamodule()  # two updates an epoch
    assert module.num_training_steps(max_epochs=max_epochs, max_steps=max_steps) == expected


@pytest.mark.slow  # each worker reads the tests anew
@pytest.mark.parametrize("number", [1, None])
def test_workers_prepare_the_same_batches(number: int | None) -> None:
    settings: dict[str, Any] = {"num_hard_negatives": number, "num_hard": (3, 1, 2)}
    with_workers = list(datamodule(num_workers=2, **settings).train_dataloader())
    assert token_ids(with_workers) == token_ids(list(datamodule(**settings).train_dataloader()))


def test_too_few_examples_are_refused_when_the_module_is_made() -> None:
    with pytest.raises(UserError, match="has 13 examples and one optimizer step needs 14"):
        datamodule(global_batch_size=14, contrastive_batch_size=7)


def test_more_hard_negatives_than_there_are_repeat() -> None:
    batch = next(iter(datamodule(num_hard_negatives=5).train_dataloader()))
    assert batch.num_passages == 3 * 6
    assert batch.positive_index.tolist() == [0, 6, 12]


def test_batches_of_a_number_are_those_of_earlier_versions() -> None:
    """A snapshot of commit b6daefd, before null: every repeated or resumed run depends on it."""
    digest = hashlib.sha256()
    for number in (0, 1, 2, 3, 5):
        module = datamodule(num_hard_negatives=number, seed=6)
        for epoch in range(3):
            module.sampler.set_epoch(epoch)
            for batch in module.train_dataloader():
                assert batch.hashes is not None
                for tensor in (
                    batch.tokens.input_ids, batch.tokens.cu_seqlens, batch.positive_index,
                    batch.hashes.queries, batch.hashes.passages, batch.hashes.answered,
                ):  # fmt: skip
                    digest.update(repr((tensor.dtype, tensor.tolist())).encode())
    assert digest.hexdigest() == "40771c998fdbc29ef245716b9efbec9a3f49ddfe25c437a1735f85bdc2103a70"


def test_null_takes_all_hard_negatives_of_each_example() -> None:
    num_hard = (0, 3, 1)
    module = datamodule(num_hard_negatives=None, num_hard=num_hard)
    assert module.num_texts_per_step == 6 * (1 + 1 + (5 * 0 + 4 * 3 + 4 * 1) / 13)
    for batch in module.train_dataloader():
        texts = batch.tokens.input_ids.split(batch.tokens.cu_seqlens.diff().tolist())
        numbers = [next(n for n, x in enumerate(LETTERS) if letter_ids(x) == q[:-1].tolist())
                   for q in texts[:3]]  # fmt: skip
        groups = [1 + num_hard[number % 3] for number in numbers]
        assert batch.positive_index.tolist() == [0, groups[0], groups[0] + groups[1]]
        assert batch.num_passages == sum(groups)
        for number, row in zip(numbers, batch.positive_index.tolist(), strict=True):
            assert texts[3 + row][:-1].tolist() == letter_ids(LETTERS[number].upper())
    assert datamodule(num_hard_negatives=2).num_texts_per_step == 6 * (1 + 3)


def test_what_is_left_out_is_told_once_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        module = datamodule(num_hard_negatives=0, num_hard=(0, 3, 1))
        list(module.train_dataloader())
    found = [r.getMessage() for r in caplog.records if r.name == "quarry.data.train_dataset"]
    assert found[0].startswith("Hard negatives per example: min 0, median 1, max 3; 5 of 13")
    assert found[1].startswith("16 hard negatives of 8 examples are not used")
    assert len(found) == 2


def test_queries_alone_with_their_positive_are_refused_or_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    single: dict[str, Any] = {"num_hard_negatives": None, "contrastive_batch_size": 1}
    with pytest.raises(
        UserError, match=r"contrastive_batch_size=1: no example has a hard negative"
    ):
        datamodule(num_hard=(0,), **single)
    datamodule(num_hard=(0, 1), **single)
    assert "contrastive_batch_size=1: 7 of 13 examples" in caplog.text
    caplog.clear()
    datamodule(num_hard=(2, 1), **single)
    assert "examples have no hard negative" not in caplog.text


def test_a_batch_moves_to_a_device_as_a_whole() -> None:
    batch = next(iter(datamodule().train_dataloader())).to("meta")
    assert batch.hashes is not None
    tensors = [batch.positive_index, batch.tokens.input_ids, batch.tokens.position_ids]
    tensors += [batch.hashes.queries, batch.hashes.passages, batch.hashes.answered]
    assert {t.device for t in [*tensors, batch.tokens.cu_seqlens]} == {torch.device("meta")}


def test_a_test_run_has_one_batch() -> None:
    assert len(one_empty_batch()) == 1
