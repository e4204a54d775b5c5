"""Choose the passages of an example in an epoch: one positive and some hard negatives."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from quarry.data.draws import Draws
from quarry.data.refreshed_negatives import RefreshedNegatives
from quarry.data.sampler import ExampleKey
from quarry.data.train_examples import ExampleSource
from quarry.errors import UserError
from quarry.types import Document, TrainExample

logger = logging.getLogger(__name__)


class TrainDataset(Dataset[TrainExample]):
    """Dataset that chooses one positive of each example, and the configured hard negatives.

    An item's key is (epoch, index), or (epoch, index, step) with hard negatives that were mined at
    an optimizer step. Its contents depend on the seed and the key alone: not on the worker, on what
    was read before, or on whether the run was resumed. Mined hard negatives replace those of an
    example, have no teacher's scores, and leave an example alone for which none was found.

    With `num_hard_negatives=None` every example has all its hard negatives, in their order, so
    examples differ in number. With a number, as in Tevatron, an example's hard negatives are
    shuffled by seed and index. A window of `num_hard_negatives` moves through that order by its own
    width each epoch and starts over at the end, so consecutive epochs use different ones. An
    example with fewer hard negatives draws them with replacement.

    If there are several positives, one is drawn in each epoch. A hard negative that is also a
    positive (same document id) is left out. A teacher's scores stay with their passages.

    Args:
        examples: the training set.
        num_hard_negatives: hard negatives per query, 0 or more; None: all that an example has.
        seed: seed of every choice.
        num_mined: the most hard negatives that an example has once they are mined in training.

    Attributes:
        hard_negative_counts: [num_examples] int32, number of distinct hard negatives of each
            example, as the data have them.
        refreshed: those that are mined in training; None: none are.

    Raises:
        UserError: `num_hard_negatives` is negative, or above 0 while an example has none.
    """

    def __init__(
        self,
        examples: ExampleSource,
        *,
        num_hard_negatives: int | None,
        seed: int,
        num_mined: int = 0,
    ) -> None:
        if num_hard_negatives is not None and num_hard_negatives < 0:
            raise UserError(
                f"data.num_hard_negatives={num_hard_negatives}: must be 0 or more, or null for all "
                "that an example has. Fix: data.num_hard_negatives=null"
            )
        self.examples = examples
        self.num_hard_negatives = num_hard_negatives
        self.seed = seed
        self.num_mined = num_mined
        self.refreshed: RefreshedNegatives | None = None
        self.hard_negative_counts = _hard_negative_counts(examples)
        if num_hard_negatives:
            self._check_hard_negatives(num_hard_negatives)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def group_sizes(self) -> NDArray[np.int64]:
        """Return the number of passages of each example in an epoch, the positive included.

        With hard negatives that are mined in training it is the most that an example can have.
        """
        if self.num_hard_negatives is None:
            counts = self.hard_negative_counts.astype(np.int64)
            return 1 + np.maximum(counts, self.num_mined)
        return np.full(len(self), 1 + self.num_hard_negatives, dtype=np.int64)

    @property
    def unused_hard_negatives(self) -> str | None:
        """Return a sentence about the hard negatives that `num_hard_negatives=0` leaves out.

        None: none are left out. (With a number above 0 the window shows others each epoch.)
        """
        number = int(self.hard_negative_counts.sum())
        if self.num_hard_negatives != 0 or number == 0:
            return None
        return (
            f"{number} hard negatives of {int((self.hard_negative_counts > 0).sum())} examples are "
            "not used (data.num_hard_negatives=0)"
        )

    @property
    def caveats(self) -> tuple[str, ...]:
        """Return what a reader must know of the training data."""
        unused = self.unused_hard_negatives
        return (*getattr(self.examples, "caveats", ()), *([] if unused is None else [unused]))

    def location(self, index: int) -> str:
        """Return the place of an example, "file:line" where the source knows it."""
        if isinstance(self.examples, CountedSource):
            return self.examples.location(index)
        return f"example {index}"

    def log_hard_negatives(self) -> None:
        """Log how many hard negatives the examples have; warn if none are used."""
        counts = self.hard_negative_counts
        logger.info(
            "Hard negatives per example: min %d, median %g, max %d; %d of %d examples have none",
            counts.min(),
            np.median(counts),
            counts.max(),
            (counts == 0).sum(),
            len(counts),
        )
        if self.unused_hard_negatives is not None:
            logger.warning(
                "%s. Fix: data.num_hard_negatives=null uses all", self.unused_hard_negatives
            )

    def __getitem__(self, key: ExampleKey) -> TrainExample:
        epoch, index = int(key[0]), int(key[1])
        example = self.examples[index]
        mined: tuple[Document, ...] = ()
        if len(key) == 3 and self.refreshed is not None:
            mined = self.refreshed.documents(key[2], index)
        if mined:
            example = replace(example, hard_negatives=mined, hard_negative_scores=None)
        # mined ones are no positives by their texts; ids of another corpus say nothing
        places = range(len(mined)) if mined else _places_of_hard_negatives(example)
        drawn = Draws(self.seed, epoch, index, "positive").below(len(example.positives))
        chosen = [places[number] for number in self._window(len(places), epoch, index)]
        return replace(
            example,
            positives=(example.positives[drawn],),
            positive_scores=_picked(example.positive_scores, [drawn]),
            hard_negatives=tuple([example.hard_negatives[place] for place in chosen]),
            hard_negative_scores=_picked(example.hard_negative_scores, chosen),
        )

    def _window(self, available: int, epoch: int, index: int) -> Sequence[int]:
        """Return the indices of an example's hard negatives (of `available`) in an epoch."""
        wanted = self.num_hard_negatives
        if wanted is None:
            return range(available)
        if wanted == 0:
            return ()
        if available < wanted:
            draws = Draws(self.seed, epoch, index, "hard negatives")
            return [draws.below(available) for _ in range(wanted)]
        order = Draws(self.seed, index, "order of hard negatives").permutation(available)
        start = epoch * wanted
        return [order[(start + i) % available] for i in range(wanted)]

    def _check_hard_negatives(self, wanted: int) -> None:
        counts = self.hard_negative_counts
        without = np.flatnonzero(counts == 0)
        if without.size:
            first = int(without[0])
            query_id = self.examples[first].query.query_id
            raise UserError(
                f"{self.location(first)}: query {query_id!r} has no hard negative "
                f"({without.size} of {len(counts)} examples have none), and "
                f"data.num_hard_negatives={wanted} needs at least one for each. Fix: "
                "data.num_hard_negatives=null takes those that there are, 0 takes none; or add "
                "hard negatives"
            )
        num_short = int((counts < wanted).sum())
        if num_short:
            logger.warning(
                "%d of %d examples have fewer than num_hard_negatives=%d hard negatives (the "
                "fewest: %d); theirs are drawn with replacement",
                num_short,
                len(counts),
                wanted,
                int(counts.min()),
            )


@runtime_checkable
class CountedSource(Protocol):
    """Source that knows its hard negative counts without reading examples, as `TableExamples`."""

    def hard_negative_counts(self) -> NDArray[np.int32]: ...
    def location(self, index: int) -> str: ...


def _places_of_hard_negatives(example: TrainExample) -> list[int]:
    """Return the indices of the hard negatives: each document once, none of the positives."""
    positive_ids = {positive.document_id for positive in example.positives}
    return list(
        {
            document.document_id: place
            for place, document in enumerate(example.hard_negatives)
            if document.document_id not in positive_ids
        }.values()
    )


def _picked(scores: tuple[float, ...] | None, places: Sequence[int]) -> tuple[float, ...] | None:
    return None if scores is None else tuple([scores[place] for place in places])


def _hard_negative_counts(examples: ExampleSource) -> NDArray[np.int32]:
    if isinstance(examples, CountedSource):
        return examples.hard_negative_counts()
    return read_hard_negative_counts(examples)


def read_hard_negative_counts(examples: ExampleSource) -> NDArray[np.int32]:
    """Return the number of distinct hard negatives of each example, by reading all of them."""
    each = (len(_places_of_hard_negatives(examples[index])) for index in range(len(examples)))
    return np.fromiter(each, dtype=np.int32)
