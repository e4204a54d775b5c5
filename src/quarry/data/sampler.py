"""Order the training examples resumably by (seed, epoch), and cut them into contrastive batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from quarry.errors import UserError

ExampleKey = tuple[int, int] | tuple[int, int, int]
"""(epoch, index of the example): the choice of an example's passages depends on nothing else. A
third number is the optimizer step at which its hard negatives were mined, if they were."""


class TrainBatchSampler(Sampler[list[ExampleKey]]):
    """Sampler of shuffled batches of example keys, for complete optimizer steps only.

    Args:
        num_examples: size of the training set.
        batch_size: queries in a batch (a contrastive batch).
        num_batches_per_step: batches whose gradients one optimizer step accumulates; a remainder at
            the end of an epoch that fills no step is dropped.
        seed: seed of the shuffle.

    Attributes:
        refreshed_at: optimizer step whose mined hard negatives the keys name; None: the data's own.

    Raises:
        UserError: there are fewer examples than one optimizer step needs.
    """

    def __init__(
        self, *, num_examples: int, batch_size: int, num_batches_per_step: int, seed: int
    ) -> None:
        global_batch_size = batch_size * num_batches_per_step
        if num_examples < global_batch_size:
            raise UserError(
                f"The training set has {num_examples} examples and one optimizer step needs "
                f"{global_batch_size}. Lower data.global_batch_size to {num_examples} or "
                "less, or give more data."
            )
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.num_batches = num_examples // global_batch_size * num_batches_per_step
        self.seed = seed
        self.epoch = 0
        self.refreshed_at: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[ExampleKey]]:
        return self.batches_from(0)

    def batches_from(self, start: int) -> Iterator[list[ExampleKey]]:
        """Yield the epoch's batches from number `start` on."""
        step = self.refreshed_at
        for rows in self.rows_of(self.epoch)[start:]:
            if step is None:
                yield [(self.epoch, int(row)) for row in rows]
            else:
                yield [(self.epoch, int(row), step) for row in rows]

    def rows_of(self, epoch: int) -> NDArray[np.int64]:
        """Return the examples of each batch of an epoch: [num_batches, batch_size]."""
        random = np.random.default_rng(np.random.SeedSequence([self.seed, epoch]))
        order = random.permutation(self.num_examples)
        return order[: self.num_batches * self.batch_size].reshape(-1, self.batch_size)


class _Remaining(Sampler[list[ExampleKey]]):
    """Sampler of the rest of a resumed epoch, with the length of a full epoch.

    Lightning counts from the start of the epoch. It also makes iterators that it never uses, so
    making one changes nothing here.
    """

    def __init__(self, sampler: TrainBatchSampler) -> None:
        self.sampler = sampler
        self.resumed_at = (0, 0)  # epoch, batches of it that are done

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)

    @property
    def start(self) -> int:
        epoch, num_done = self.resumed_at
        return num_done if epoch == self.sampler.epoch else 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[ExampleKey]]:
        return self.sampler.batches_from(self.start)


class ResumableLoader(DataLoader[Any]):
    """DataLoader that continues in the middle of an epoch; Lightning stores and restores its state.

    The state counts batches that were handed out, not those that workers have prepared ahead.
    Batches before the resumed one are never read. When the sampler's `refreshed_at` changes, what
    workers have prepared ahead is dropped: the next batch that is handed out has the new keys,
    whatever the number of workers.
    """

    def __init__(self, *, batch_sampler: TrainBatchSampler, **kwargs: Any) -> None:
        self._remaining = _Remaining(batch_sampler)
        self._position = (0, 0)
        # torch draws a seed for the workers each time: an own generator keeps the dropout of a
        # resumed run, which draws once more, equal to that of an uninterrupted one
        generator = torch.Generator()
        super().__init__(batch_sampler=self._remaining, generator=generator, **kwargs)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override] # torch names a class of its own
        sampler, num_done = self._remaining.sampler, self._remaining.start
        epoch, is_over = sampler.epoch, False
        while not is_over:
            refreshed_at, is_over = sampler.refreshed_at, True
            for batch in super().__iter__():
                num_done += 1
                self._position = (epoch, num_done)
                yield batch
                if sampler.refreshed_at != refreshed_at and num_done < len(sampler):
                    self._remaining.resumed_at, is_over = (epoch, num_done), False
                    break

    def state_dict(self) -> dict[str, int]:
        epoch, num_done = self._position
        return {"epoch": epoch, "num_batches_done": num_done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        epoch, num_done = state["epoch"], state["num_batches_done"]
        if num_done >= len(self._remaining):  # the epoch was over
            epoch, num_done = epoch + 1, 0
        self._remaining.resumed_at = self._position = (epoch, num_done)
        self._remaining.set_epoch(epoch)
