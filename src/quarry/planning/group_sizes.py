"""Count the passages of a run's queries: the same number each, or as its examples have them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quarry.data.sampler import TrainBatchSampler
from quarry.data.train_dataset import TrainDataset

ASSUMED_HARD_NEGATIVES = 15
"""Of a query, if it is not stated: RepLLaMA's number (arXiv 2310.08319), the largest in conf/."""

NUM_EPOCHS = 100
"""Epochs that are looked through; the largest contrastive batch of more hardly grows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupSizes:
    """Hold the number of passages of a query, the positive among them.

    Attributes:
        mean: over all examples.
        in_largest_batch: a query's mean in the contrastive batch that has the most passages.
        largest: of the query that has the most.
        is_assumed: data.num_hard_negatives is null, and no examples were read to count theirs.
    """

    mean: float
    in_largest_batch: float
    largest: int
    is_assumed: bool = False

    @classmethod
    def stated(cls, num_hard_negatives: int | None) -> GroupSizes:
        """Return those of a configuration; for null, `ASSUMED_HARD_NEGATIVES` a query."""
        number = ASSUMED_HARD_NEGATIVES if num_hard_negatives is None else num_hard_negatives
        return cls(
            mean=1 + number,
            in_largest_batch=1 + number,
            largest=1 + number,
            is_assumed=num_hard_negatives is None,
        )

    @classmethod
    def counted(
        cls, dataset: TrainDataset, sampler: TrainBatchSampler, *, num_batches: int
    ) -> GroupSizes:
        """Count those of a run.

        The order of the examples follows from the seed, so the largest contrastive batch is not
        estimated: the batches of the run's epochs (of the first `NUM_EPOCHS`, if there are more)
        are summed, without reading texts.

        Args:
            sampler: of the run. Where it has more examples than `dataset` (their number was
                stated), those of `dataset` count again and again.
            num_batches: contrastive batches of the run; 0 counts as 1.
        """
        num_batches = max(1, num_batches)
        if dataset.num_hard_negatives is not None:
            return cls.stated(dataset.num_hard_negatives)
        sizes = dataset.group_sizes
        repeated = np.resize(sizes, sampler.num_examples)
        starts = range(0, num_batches, len(sampler))[:NUM_EPOCHS]
        largest = max(
            int(repeated[sampler.rows_of(epoch)[: num_batches - start]].sum(axis=1).max())
            for epoch, start in enumerate(starts)
        )
        return cls(
            mean=float(sizes.mean()),
            in_largest_batch=largest / sampler.batch_size,
            largest=int(sizes.max()),
        )
