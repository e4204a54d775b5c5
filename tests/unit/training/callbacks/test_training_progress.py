"""Lines of training: step, loss, learning rate, tokens; the loss is read only for them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from helpers.training import OneNumber, loader_of, quiet_trainer
from quarry.evaluation.retrieval_times import RetrievalTimes
from quarry.training.callbacks.training_progress import TrainingProgress


class Module(OneNumber):
    """With a rate that halves at each step."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        scheduler = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


@dataclass
class Time(pl.Callback):
    """A clock that a batch moves by 20 s; an evaluation of 40 s follows the second step."""

    times: RetrievalTimes
    now: float = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            self.now += 40
            self.times.encoding_s += 40

    def loss(self, weight: Tensor, batch: Any) -> Tensor:
        self.now += 20
        return weight * 0.412

    def __call__(self) -> float:
        return self.now


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == "quarry.runtime.progress"]


def train(num_batches: int, **settings: Any) -> tuple[TrainingProgress, pl.Trainer]:
    times = RetrievalTimes()
    clock = Time(times)
    callback = TrainingProgress(times=times, is_bar=False, clock=clock)
    batch = SimpleNamespace(tokens=SimpleNamespace(num_tokens=1_000))
    trainer = quiet_trainer(callback, clock, **settings)
    trainer.fit(Module(clock.loss), loader_of([batch] * num_batches))
    return callback, trainer


def test_lines_of_training(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="quarry.runtime.progress")
    train(5)
    assert messages(caplog) == [
        # 0.412 times the weight, from which 0.5, 0.25, ... times 0.412 was subtracted
        "step 2 of 5 (40.0 %), loss 0.3271, learning rate 0.25, 50 tokens/s, 1 min left",
        "step 3 of 5 (60.0 %), loss 0.2847, learning rate 0.12, 50 tokens/s, 1 min left",
        "step 5 of 5 (100.0 %), loss 0.2529, learning rate 0.031, 50 tokens/s, 0 s left",
        "step 5 of 5 (100.0 %), loss 0.2529, learning rate 0.031, 50 tokens/s, after 2 min",
    ]


def test_the_learning_rate_goes_to_the_loggers() -> None:
    _, trainer = train(5, log_every_n_steps=2)
    assert trainer.callback_metrics["train/learning_rate"] == 0.5 / 8, "of step 4, the last logged"


def test_steps_count_with_accumulated_batches(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="quarry.runtime.progress")
    train(4, accumulate_grad_batches=2)
    assert [line.split(" (")[0] for line in messages(caplog)] == [
        "step 1 of 2",
        "step 2 of 2",
        "step 2 of 2",
    ]


def test_the_loss_is_read_only_for_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read waits for the GPU."""
    reads = []
    read = Tensor.__float__

    def counted(self: Tensor) -> float:
        reads.append(1)
        return read(self)

    monkeypatch.setattr(Tensor, "__float__", counted)
    monkeypatch.setattr("quarry.runtime.progress.INTERVAL_S", 1e9)
    train(5)
    assert reads == []


def test_a_failure_closes_it() -> None:
    times = RetrievalTimes()
    callback = TrainingProgress(times=times, is_bar=False)

    class Fails(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("no room")

    batch = SimpleNamespace(tokens=SimpleNamespace(num_tokens=1))
    with pytest.raises(RuntimeError, match="no room"):
        quiet_trainer(callback, Fails()).fit(
            Module(lambda weight, _: weight * 1.0), loader_of([batch])
        )
    assert callback._progress is not None
    assert not callback._progress._is_open
