"""Dealing: every batch to one rank, all ranks agree, as many tokens or as many steps for each."""

from __future__ import annotations

import random

import numpy as np
import pytest

from quarry.data.tokenization import TokenizedText
from quarry.distributed import world
from quarry.retrieval.encoding_plan import Dealer, PlannedBatch

SIZES = [random.Random(0).randrange(50, 100) for _ in range(100)]


def batch(start: int) -> PlannedBatch:
    text = TokenizedText(ids=np.zeros(1, dtype=np.int64))
    return PlannedBatch(start=start, rows=np.array([start]), texts=[text])


def dealt(
    monkeypatch: pytest.MonkeyPatch,
    *,
    rank: int,
    num_ranks: int,
    sizes: list[int],
    num_per_window: int = 10,
    has_equal_steps: bool = False,
) -> list[list[int]]:
    """Starts of the batches that a rank gets after each window, and at the end; -1: idle."""
    monkeypatch.setattr(world, "rank", lambda: rank)
    monkeypatch.setattr(world, "size", lambda: num_ranks)
    dealer = Dealer(has_equal_steps=has_equal_steps)
    found = []
    for first in range(0, len(sizes), num_per_window):
        window = range(first, min(first + num_per_window, len(sizes)))
        own = [batch(start) for start in window if dealer.is_own(sizes[start])]
        found.append([one.start for one in dealer.hand_out(own)])
    return [*found, [one.start for one in dealer.rest()]]


@pytest.mark.parametrize("has_equal_steps", [False, True])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("num_batches", [0, 1, 2, 100])
def test_every_batch_goes_to_one_rank(
    num_batches: int, num_ranks: int, has_equal_steps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_rank = []
    for rank in range(num_ranks):
        found = dealt(
            monkeypatch,
            rank=rank,
            num_ranks=num_ranks,
            sizes=SIZES[:num_batches],
            has_equal_steps=has_equal_steps,
        )
        by_rank.append([start for own in found for start in own])
    assert sorted(start for own in by_rank for start in own if start >= 0) == [*range(num_batches)]
    counts = {len(own) for own in by_rank}
    if has_equal_steps:
        assert counts == {-(-num_batches // num_ranks)}
        assert all(-1 not in own[:-1] for own in by_rank)
    else:
        tokens = [sum(SIZES[start] for start in own) for own in by_rank]
        assert max(tokens) - min(tokens) <= max(SIZES)
        assert all(-1 not in own for own in by_rank)


def test_without_equal_steps_nothing_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dealt(monkeypatch, rank=0, num_ranks=2, sizes=[5, 5, 5], num_per_window=1)
    assert found == [[0], [], [2], []]


def test_a_step_is_handed_out_once_all_its_batches_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = [[[], [0], [3], [], [6]], [[], [1], [4], [], [-1]], [[], [2], [5], [], [-1]]]
    for rank in range(3):
        found = dealt(
            monkeypatch,
            rank=rank,
            num_ranks=3,
            sizes=[5, 5, 9, 9, 1, 1, 1],
            num_per_window=2,
            has_equal_steps=True,
        )
        assert found == expected[rank]
