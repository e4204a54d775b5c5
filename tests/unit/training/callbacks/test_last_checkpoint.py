"""Ctrl-C between two steps and in the last evaluation: saved, told, and the handlers given back."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from helpers.training import fit
from quarry.errors import Interrupted
from quarry.training.callbacks.last_checkpoint import LastCheckpoint


class InterruptAt(pl.Callback):
    """Sends a signal to this process in one hook, by default as Ctrl-C would."""

    def __init__(self, hook: str, number: signal.Signals = signal.SIGINT) -> None:
        self.number = number
        setattr(self, hook, self._interrupt)

    def _interrupt(self, *_: Any) -> None:
        signal.raise_signal(self.number)


@pytest.mark.parametrize(("hook", "step"), [("on_train_batch_end", 1), ("on_train_end", 3)])
def test_an_interrupted_run_is_saved_and_says_where(tmp_path: Path, hook: str, step: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = LastCheckpoint(path=path, every_n_steps=100)
    with pytest.raises(Interrupted, match=f"SIGINT after step {step}.*run={tmp_path}"):
        fit(
            lambda weight, x: weight * x,
            [1, 1, 1],
            InterruptAt(hook),
            checkpoint,
            enable_checkpointing=True,
        )
    assert torch.load(path, weights_only=True)["global_step"] == step
    assert signal.getsignal(signal.SIGINT) is before


class InterruptTwice(pl.Callback):
    """Sends SIGTERM, and SIGINT before the step has ended."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    checkpoint = LastCheckpoint(path=path, every_n_steps=1)
    with pytest.raises(Interrupted, match=f"SIGTERM, then SIGINT.*{path} of step 2") as caught:
        fit(
            lambda weight, x: weight * x, [1, 1, 1], InterruptTwice(), checkpoint,
            enable_checkpointing=True,
        )  # fmt: skip
    assert (caught.value.exit_code, caught.value.is_shared) == (130, False)
    assert torch.load(path, weights_only=True)["global_step"] == 2


def test_sigterm_has_its_own_exit_code(tmp_path: Path) -> None:
    checkpoint = LastCheckpoint(path=tmp_path / "last.ckpt", every_n_steps=100)
    with pytest.raises(Interrupted, match="SIGTERM after step 1") as caught:
        fit(
            lambda weight, x: weight * x, [1, 1], InterruptAt("on_train_batch_end", signal.SIGTERM),
            checkpoint, enable_checkpointing=True,
        )  # fmt: skip
    assert (caught.value.exit_code, caught.value.is_shared) == (143, True)


def test_the_last_step_is_saved_whatever_the_interval(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    fit(
        lambda weight, x: weight * x,
        [1, 1, 1],
        LastCheckpoint(path=path, every_n_steps=2),
        enable_checkpointing=True,
    )
    assert torch.load(path, weights_only=True)["global_step"] == 3


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".step-7.tmp"
    left.mkdir()
    (left / "shard").touch()
    path = tmp_path / "last.ckpt"
    callback = LastCheckpoint(path=path, every_n_steps=2)
    fit(lambda weight, x: weight * x, [1], callback, enable_checkpointing=True)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


class FailsToWrite(pl.Callback):
    """Raises while the second checkpoint is put together."""

    def __init__(self) -> None:
        self.num_calls = 0

    def on_save_checkpoint(self, *_: Any) -> None:
        self.num_calls += 1
        if self.num_calls == 2:
            raise OSError("disk full")


def test_a_save_that_fails_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    callback = LastCheckpoint(path=path, every_n_steps=1)
    with pytest.raises(OSError, match="disk full"):
        fit(
            lambda weight, x: weight * x, [1, 1, 1], FailsToWrite(), callback,
            enable_checkpointing=True,
        )  # fmt: skip
    assert torch.load(path, weights_only=True)["global_step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
