"""Which passages of an example a query meets in an epoch: one positive, some hard negatives."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from quarry.data.train_examples import ExampleSource
from quarry.errors import UserError
from quarry.types import Document, TrainExample

logger = logging.getLogger(__name__)


class TrainDataset(Dataset[TrainExample]):
    """Examples with exactly one positive and `num_hard_negatives` hard negatives each.

    The key of an item is (epoch, index), and what it holds depends on the seed and the key alone:
    not on the worker, on what was read before, or on whether the run was resumed.

    As in Tevatron, an example's hard negatives are put in an order that depends on the seed and the
    index, and a window of `num_hard_negatives` moves on through it by its own width each epoch (and
    starts over at the end), so that consecutive epochs show different ones. An example with fewer
    than asked repeats some: they are drawn with replacement. One of several positives is drawn anew
    in each epoch. A hard negative that is also a positive (same document id) is left out.

    Args:
        examples: the training set.
        num_hard_negatives: hard negatives a query, 0 or more.
        seed: of every choice.

    Raises:
        UserError: `num_hard_negatives` is negative, or above 0 while an example has none.
    """

    def __init__(self, examples: ExampleSource, *, num_hard_negatives: int, seed: int) -> None:
        if num_hard_negatives < 0:
            raise UserError(f"num_hard_negatives={num_hard_negatives}: must be 0 or more")
        if num_hard_negatives > 0:
            _check_hard_negatives(examples, num_hard_negatives)
        self.examples = examples
        self.num_hard_negatives = num_hard_negatives
        self.seed = seed

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: tuple[int, int]) -> TrainExample:
        epoch, index = int(key[0]), int(key[1])
        example = self.examples[index]
        positive = example.positives[
            _Draws(self.seed, epoch, index, "positive").below(len(example.positives))
        ]
        hard_negatives = self._hard_negatives(_hard_negatives(example), epoch, index)
        return replace(example, positives=(positive,), hard_negatives=hard_negatives)

    def _hard_negatives(
        self, candidates: Sequence[Document], epoch: int, index: int
    ) -> tuple[Document, ...]:
        wanted, available = self.num_hard_negatives, len(candidates)
        if wanted == 0:
            return ()
        if available < wanted:
            draws = _Draws(self.seed, epoch, index, "hard negatives")
            return tuple([candidates[draws.below(available)] for _ in range(wanted)])
        order = _Draws(self.seed, index, "order of hard negatives").permutation(available)
        start = epoch * wanted
        return tuple([candidates[order[(start + i) % available]] for i in range(wanted)])


@runtime_checkable
class _CountedSource(Protocol):
    """A source that knows about its hard negatives without reading them, as `TableExamples`."""

    def hard_negative_counts(self) -> NDArray[np.int32]: ...
    def location(self, index: int) -> str: ...


class _Draws:
    """Random numbers that depend on what they are for alone.

    The parts of the key are hashed as a tuple: sums or products of them would collide, and give
    example i in epoch e the choices of example i+1 in epoch e-1. `Random.random` is the one method
    whose sequence Python promises to keep over its versions.
    """

    def __init__(self, *key: int | str) -> None:
        digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
        self._random = random.Random(int.from_bytes(digest, "big")).random

    def below(self, bound: int) -> int:
        return int(self._random() * bound)

    def permutation(self, length: int) -> list[int]:
        keys = [self._random() for _ in range(length)]
        return sorted(range(length), key=keys.__getitem__)


def _hard_negatives(example: TrainExample) -> list[Document]:
    """An example's hard negatives, each document once, without its positives."""
    positive_ids = {positive.document_id for positive in example.positives}
    return list(
        {
            document.document_id: document
            for document in example.hard_negatives
            if document.document_id not in positive_ids
        }.values()
    )


def _check_hard_negatives(examples: ExampleSource, num_hard_negatives: int) -> None:
    if isinstance(examples, _CountedSource):
        counts = examples.hard_negative_counts()
    else:
        each = (len(_hard_negatives(examples[index])) for index in range(len(examples)))
        counts = np.fromiter(each, dtype=np.int32)
    without = np.flatnonzero(counts == 0)
    if without.size:
        first = int(without[0])
        where = f"example {first}"
        if isinstance(examples, _CountedSource):
            where = examples.location(first)
        raise UserError(
            f"{where}: query {examples[first].query.query_id!r} has no hard negative "
            f"({without.size} of {len(counts)} examples have none), and num_hard_negatives="
            f"{num_hard_negatives} needs at least one for each; set it to 0, or add hard negatives"
        )
    num_short = int((counts < num_hard_negatives).sum())
    if num_short:
        logger.warning(
            "%d of %d examples have fewer than num_hard_negatives=%d hard negatives (the fewest: "
            "%d); theirs are drawn with replacement",
            num_short,
            len(counts),
            num_hard_negatives,
            int(counts.min()),
        )
