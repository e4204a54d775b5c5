"""Passages of the queries of a run: counted in its own order, and what memory they are planned to
take beside the shares that ranks really get."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from quarry.data.sampler import TrainBatchSampler
from quarry.data.train_dataset import TrainDataset
from quarry.distributed.balance import balanced_shares
from quarry.planning.group_sizes import GroupSizes
from quarry.planning.step_memory import ContrastiveBatches
from quarry.types import TrainExample

NUM_EXAMPLES, BATCH_SIZE = 3200, 64


class Counted:
    """Examples whose hard negatives are known by their number, and whose texts are not read."""

    def __init__(self, counts: NDArray[np.int32]) -> None:
        self.counts = counts

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: int) -> TrainExample:
        pytest.fail("a text was read")

    def hard_negative_counts(self) -> NDArray[np.int32]:
        return self.counts

    def location(self, index: int) -> str:
        return str(index)


def poisson(random: Generator) -> NDArray[np.int32]:
    return random.poisson(6, NUM_EXAMPLES).astype(np.int32)


def heavy(random: Generator) -> NDArray[np.int32]:
    """A few hundred examples with dozens, and some with 200."""
    return np.minimum(200, random.pareto(1.2, NUM_EXAMPLES) * 4).astype(np.int32)


def dataset_of(counts: NDArray[np.int32], number: int | None = None) -> TrainDataset:
    return TrainDataset(Counted(counts), num_hard_negatives=number, seed=0)


def sampler_of(num_examples: int = NUM_EXAMPLES) -> TrainBatchSampler:
    return TrainBatchSampler(
        num_examples=num_examples, batch_size=BATCH_SIZE, num_batches_per_step=1, seed=3
    )


@pytest.mark.parametrize("num_batches", [1, 50, 77, 150])
def test_the_largest_contrastive_batch_is_that_of_the_run(num_batches: int) -> None:
    dataset, sampler = dataset_of(poisson(np.random.default_rng(0))), sampler_of()
    totals = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        totals += [sum(dataset.group_sizes[index] for _, index in keys) for keys in sampler]
    found = GroupSizes.counted(dataset, sampler, num_batches=num_batches)
    assert found.in_largest_batch == max(totals[:num_batches]) / BATCH_SIZE
    assert found.mean == dataset.group_sizes.mean()
    assert found.largest == dataset.group_sizes.max()


def test_a_run_of_no_steps_and_one_of_stated_examples_have_a_largest_batch() -> None:
    dataset = dataset_of(np.array([0, 2, 4], dtype=np.int32))
    for num_batches in (0, 5):
        found = GroupSizes.counted(dataset, sampler_of(320), num_batches=num_batches)
        assert (found.mean, found.largest) == (3, 5)
        assert 2 < found.in_largest_batch < 5


def test_a_number_needs_no_order() -> None:
    dataset = dataset_of(np.array([3, 9], dtype=np.int32), number=3)
    expected = GroupSizes(mean=4, in_largest_batch=4, largest=4)
    assert GroupSizes.counted(dataset, sampler_of(), num_batches=9) == expected
    assert GroupSizes.stated(3) == expected
    assert GroupSizes.stated(None).is_assumed


@pytest.mark.parametrize("num_ranks", [1, 2, 8])
@pytest.mark.parametrize("counts_of", [poisson, heavy])
def test_the_planned_share_covers_the_largest_that_a_rank_gets(
    counts_of: Callable[[Generator], NDArray[np.int32]], num_ranks: int
) -> None:
    """By at most a tenth; texts of 100 +- 30 tokens, queries of 20."""
    random = np.random.default_rng(1)
    dataset, sampler = dataset_of(counts_of(random)), sampler_of()
    sizes = dataset.group_sizes
    texts = random.normal(100, 30, sizes.sum()).clip(5).astype(int)
    tokens = 20 + np.add.reduceat(texts, np.cumsum(sizes) - sizes)
    largest = max(
        int(tokens[rows][share].sum())
        for epoch in range(2)
        for rows in sampler.rows_of(epoch)
        for share in balanced_shares(tokens[rows].tolist(), num_shares=num_ranks)
    )
    found = GroupSizes.counted(dataset, sampler, num_batches=2 * len(sampler))
    per_passage, mean = texts.mean(), tokens.mean()
    planned = ContrastiveBatches(
        num_queries=BATCH_SIZE,
        num_passages_per_query=found.in_largest_batch,
        tokens_per_query=mean,
        deviation=float((tokens - per_passage * (sizes - sizes.mean())).std()),
        longest_text=250,
        num_batches=2 * len(sampler),
        more_tokens_per_query=per_passage * (found.in_largest_batch - found.mean),
        tokens_of_largest_group=mean + per_passage * (found.largest - found.mean),
    ).largest_share(num_ranks)
    assert largest <= planned <= 1.1 * largest
