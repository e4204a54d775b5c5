"""Packing by hand, and batch plans that are counted in tokens."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from quarry.data.packing import pack, plan_batches, split
from quarry.errors import UserError


def plan(lengths: list[int], budget: int) -> list[list[int]]:
    return [rows.tolist() for rows in plan_batches(lengths, max_tokens_per_batch=budget)]


def test_texts_lie_end_to_end() -> None:
    batch = pack([[7, 8, 9], [5], np.array([1, 2])])
    assert batch.input_ids.tolist() == [7, 8, 9, 5, 1, 2]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 0, 1]
    assert batch.cu_seqlens.tolist() == [0, 3, 4, 6]
    assert (batch.max_seqlen, len(batch), batch.num_tokens) == (3, 3, 6)
    assert batch.input_ids.dtype == batch.position_ids.dtype == torch.int64
    assert batch.cu_seqlens.dtype == torch.int32


def test_one_text() -> None:
    batch = pack([[4]])
    assert (batch.input_ids.tolist(), batch.cu_seqlens.tolist()) == ([4], [0, 1])


@pytest.mark.parametrize("texts", [[], [[1], []]])
def test_nothing_is_not_packed(texts: list[list[int]]) -> None:
    with pytest.raises(AssertionError):
        pack(texts)


def test_longest_first_and_equal_lengths_in_order() -> None:
    # 9 alone (9 + 5 > 10), then 5 + 3 + 2 = 10, then the other 2 and 1
    assert plan([2, 9, 3, 2, 5, 1], 10) == [[1], [4, 2, 0], [3, 5]]


def test_a_batch_may_fill_the_budget_to_the_last_token() -> None:
    assert plan([5, 5, 5], 10) == [[0, 1], [2]]
    assert plan([5, 5, 5], 9) == [[0], [1], [2]]


def test_a_text_longer_than_the_budget_goes_alone() -> None:
    assert plan([1, 30, 1, 20], 10) == [[1], [3], [0, 2]]


def test_no_text_no_batch() -> None:
    assert plan([], 10) == []


@pytest.mark.parametrize("budget", [1, 17, 64, 10_000])
def test_every_text_once_within_the_budget(budget: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    batches = plan_batches(lengths, max_tokens_per_batch=budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    for rows in batches:
        assert len(rows) == 1 or lengths[rows].sum() <= budget
    flat = lengths[np.concatenate(batches)]
    assert (np.diff(flat) <= 0).all()
    # no batch is closed while the next text would still have fitted
    for rows, following in itertools.pairwise(batches):
        assert lengths[rows].sum() + lengths[following[0]] > budget


def test_the_plan_is_a_function_of_the_lengths() -> None:
    lengths = np.random.default_rng(1).integers(1, 9, 50)
    assert plan(lengths.tolist(), 20) == plan(lengths.astype(np.int32).tolist(), 20)
    kept = lengths.copy()
    plan_batches(lengths, max_tokens_per_batch=20)
    assert (lengths == kept).all()


@pytest.mark.parametrize("budget", [0, -5])
def test_an_impossible_budget_is_refused(budget: int) -> None:
    with pytest.raises(UserError, match=rf"max_tokens_per_batch={budget} must be at least 1"):
        plan_batches([1, 2], max_tokens_per_batch=budget)


def test_a_packed_batch_taken_apart_is_its_texts_packed_anew() -> None:
    random = np.random.default_rng(0)
    texts = [random.integers(0, 100, length) for length in (3, 1, 5, 2, 4)]
    batches = [np.array([2]), np.array([4, 0]), np.array([1, 3])]
    for found, rows in zip(split(pack(texts), batches), batches, strict=True):
        expected = pack([texts[row] for row in rows])
        assert found.input_ids.tolist() == expected.input_ids.tolist()
        assert found.position_ids.tolist() == expected.position_ids.tolist()
        assert found.cu_seqlens.tolist() == expected.cu_seqlens.tolist()
        assert found.cu_seqlens.dtype == expected.cu_seqlens.dtype
        assert found.max_seqlen == expected.max_seqlen
