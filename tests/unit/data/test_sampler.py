"""The order of training: from seed and epoch alone, in whole updates, resumed where it stopped."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from quarry.data.sampler import ExampleKey, ResumableLoader, TrainBatchSampler
from quarry.errors import UserError
from quarry.training.callbacks.rng_state import RNGState

Batch = list[ExampleKey]


def sampler(
    *, num_examples: int = 23, batch_size: int = 2, per_step: int = 3, seed: int = 0
) -> TrainBatchSampler:
    return TrainBatchSampler(
        num_examples=num_examples,
        batch_size=batch_size,
        num_batches_per_step=per_step,
        seed=seed,
    )


def epoch_of(batch_sampler: TrainBatchSampler, epoch: int) -> list[Batch]:
    batch_sampler.set_epoch(epoch)
    return list(batch_sampler)


class Keys(Dataset[ExampleKey]):
    """Hands out the keys it is asked for, and notes them."""

    def __init__(self) -> None:
        self.asked: list[ExampleKey] = []

    def __getitem__(self, key: ExampleKey) -> ExampleKey:
        self.asked.append(key)
        return key


def loader(*, num_workers: int = 0, dataset: Keys | None = None) -> ResumableLoader:
    """Nine batches of two keys an epoch."""
    return ResumableLoader(
        dataset=dataset or Keys(),
        batch_sampler=sampler(),
        collate_fn=list,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def test_keys_are_the_epoch_and_each_example_at_most_once() -> None:
    batches = epoch_of(sampler(), 4)
    assert [len(batch) for batch in batches] == [2] * 9
    assert {epoch for batch in batches for epoch, _ in batch} == {4}
    rows = [row for batch in batches for _, row in batch]
    assert len(set(rows)) == 18
    assert set(rows) <= set(range(23))
    assert all(type(row) is int for row in rows)


@pytest.mark.parametrize(
    ("num_examples", "num_batches"), [(6, 3), (11, 3), (12, 6), (23, 9), (24, 12)]
)
def test_whole_steps_only(num_examples: int, num_batches: int) -> None:
    batch_sampler = sampler(num_examples=num_examples)
    assert len(batch_sampler) == len(list(batch_sampler)) == num_batches


def test_all_examples_where_they_fill_whole_steps() -> None:
    rows = [row for batch in sampler(num_examples=24) for _, row in batch]
    assert sorted(rows) == list(range(24))


def test_order_is_a_function_of_seed_and_epoch() -> None:
    used = sampler()
    epoch_of(used, 0)
    assert epoch_of(used, 3) == epoch_of(sampler(), 3)
    orders = [
        [row for batch in epoch_of(sampler(seed=seed), epoch) for _, row in batch]
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_the_end_of_an_epoch_is_left_out_at_random() -> None:
    left_out = [
        frozenset(range(23)) - {row for batch in epoch_of(sampler(), e) for _, row in batch}
        for e in range(4)
    ]
    assert len(set(left_out)) > 1


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(UserError, match=r"has 5 examples.*needs 6.*global_batch_size to 5"):
        sampler(num_examples=5)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_done", [0, 1, 4, 8])
def test_a_resumed_loader_goes_on_with_exactly_the_remaining_batches(
    num_workers: int, num_done: int
) -> None:
    whole = epoch_of(sampler(), 0)
    first = loader(num_workers=num_workers)
    assert list(islice(first, num_done)) == whole[:num_done]
    state = first.state_dict()  # workers are ahead of what was handed out by now

    second = loader(num_workers=num_workers)
    second.load_state_dict(state)
    assert list(second) == whole[num_done:]
    second.batch_sampler.sampler.set_epoch(1)  # type: ignore[union-attr, attr-defined]
    assert list(second) == epoch_of(sampler(), 1)


def test_an_iterator_that_was_made_and_dropped_loses_nothing() -> None:
    resumed = loader()
    resumed.load_state_dict(loader_state(4))
    next(iter(resumed))
    assert list(resumed) == epoch_of(sampler(), 0)[4:]


def test_batches_before_the_resumed_one_are_not_read() -> None:
    dataset = Keys()
    resumed = loader(dataset=dataset)
    resumed.load_state_dict(loader_state(7))
    list(resumed)
    assert dataset.asked == [key for batch in epoch_of(sampler(), 0)[7:] for key in batch]


def test_a_state_survives_being_loaded_and_counts_on() -> None:
    resumed = loader()
    resumed.load_state_dict(loader_state(4))
    assert resumed.state_dict() == loader_state(4)
    list(islice(resumed, 2))
    assert resumed.state_dict() == loader_state(6)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_state_from_the_end_of_an_epoch_starts_the_next_one(num_workers: int) -> None:
    first = loader(num_workers=num_workers)
    list(first)
    resumed = loader(num_workers=num_workers)
    resumed.load_state_dict(first.state_dict())
    assert list(resumed) == epoch_of(sampler(), 1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_reading_leaves_the_random_numbers_of_training_alone(num_workers: int) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    list(loader(num_workers=num_workers))
    assert torch.equal(torch.rand(2), expected)


def test_the_length_is_that_of_a_whole_epoch_also_when_resumed() -> None:
    resumed = loader()
    resumed.load_state_dict(loader_state(4))
    assert len(resumed) == 9


def loader_state(num_done: int) -> dict[str, int]:
    """The state after some batches of the first epoch."""
    used = loader()
    list(islice(used, num_done))
    return used.state_dict()


class Recorder(pl.LightningModule):
    """Notes the batches of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Batch] = []
        self.drawn: list[float] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.seen.append([(int(epoch), int(row)) for epoch, row in batch])
        self.drawn.append(torch.rand(()).item())  # as dropout would
        return self.weight * 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAtUpdate(pl.Callback):
    """Saves between two steps, which is when real runs save."""

    def __init__(self, file: Path, *, update: int) -> None:
        self.file = file
        self.update = update

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.update and not self.file.exists():
            trainer.save_checkpoint(self.file)


def fit(*, max_steps: int, folder: Path, checkpoint: Path | None = None) -> Recorder:
    torch.manual_seed(max_steps)
    module = Recorder()
    trainer = pl.Trainer(
        max_steps=max_steps,
        max_epochs=3,
        accumulate_grad_batches=3,
        accelerator="cpu",
        devices=1,
        use_distributed_sampler=False,
        default_root_dir=folder,
        callbacks=[RNGState(), SaveAtUpdate(folder / "last.ckpt", update=max_steps)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(), ckpt_path=checkpoint, weights_only=True)
    return module


@pytest.mark.parametrize("num_steps", [1, 3, 4])  # inside an epoch, at its end, in the next
def test_lightning_resumes_with_the_remaining_batches(tmp_path: Path, num_steps: int) -> None:
    whole = [batch for epoch in range(3) for batch in epoch_of(sampler(), epoch)]
    before = fit(max_steps=num_steps, folder=tmp_path)
    assert before.seen == whole[: 3 * num_steps]
    after = fit(max_steps=9, folder=tmp_path, checkpoint=tmp_path / "last.ckpt")
    assert after.seen == whole[3 * num_steps :]
    # and with the random numbers that would have come next
    torch.manual_seed(num_steps)
    uninterrupted = [torch.rand(()).item() for _ in whole]
    assert before.drawn + after.drawn == uninterrupted


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_next_batch_names_the_newest_mining_whatever_was_prepared(num_workers: int) -> None:
    used = loader(num_workers=num_workers)
    order = used.batch_sampler.sampler  # type: ignore[union-attr, attr-defined]
    batches = iter(used)
    found = list(islice(batches, 2))
    order.refreshed_at = 7
    found += list(islice(batches, 3))
    assert used.state_dict() == {"epoch": 0, "num_batches_done": 5}
    order.refreshed_at = 9
    found += list(batches)
    steps = [()] * 2 + [(7,)] * 3 + [(9,)] * 4
    whole = epoch_of(sampler(), 0)
    assert found == [
        [(*key, *step) for key in batch] for batch, step in zip(whole, steps, strict=True)
    ]
