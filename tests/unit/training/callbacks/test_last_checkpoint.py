"""Ctrl-C between two steps and in the last evaluation: saved, told, and the handlers given back."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from helpers.training import OneNumber, fit, loader_of, quiet_trainer
from quarry.errors import Interrupted
from quarry.training.callbacks import last_checkpoint
from quarry.training.callbacks.divergence import StopOnDivergence, TrainingDivergedError
from quarry.training.callbacks.last_checkpoint import LastCheckpoint
from quarry.training.checkpoint_files import facts


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
    checkpoint.resume_command = "resume it, trusting [mine]"
    with pytest.raises(Interrupted, match=rf"SIGINT after step {step}.*resume it, .*\[mine\]"):
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


def diverged(folder: Path, batches: list[float], *callbacks: pl.Callback, **settings: Any) -> str:
    """The message of a run that saves after every step; each batch is its loss's factor."""
    path = folder / "last.ckpt"
    module = OneNumber(lambda weight, x: weight * x, is_fused=settings.pop("is_fused", None))
    last = LastCheckpoint(path=path, every_n_steps=1)
    trainer = quiet_trainer(*callbacks, last, enable_checkpointing=True)
    with pytest.raises(TrainingDivergedError) as caught:
        trainer.fit(module, loader_of([torch.tensor(each) for each in batches]), **settings)
    return str(caught.value)


def step_of(path: Path) -> int:
    step: int = torch.load(path, weights_only=True)["global_step"]
    return step


@pytest.mark.parametrize("is_fused", [None, True])
@pytest.mark.parametrize("has_stop", [True, False])
def test_a_checkpoint_is_good_once_the_next_loss_is_finite(
    tmp_path: Path, is_fused: bool | None, has_stop: bool
) -> None:
    path = tmp_path / "last.ckpt"
    stop = [StopOnDivergence(checkpoint=path)] if has_stop else []
    message = diverged(tmp_path, [1.0, 1.0, math.nan, 1.0], *stop, is_fused=is_fused)
    assert f"The last good state, of step 1, is in {path}; task=resume continues" in message
    assert "at step 3" in message
    assert step_of(path) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_good_checkpoint_stays_though_training_diverges_later(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    last = LastCheckpoint(path=path, every_n_steps=2)
    with pytest.raises(TrainingDivergedError, match="of step 2, is in"):
        fit(
            lambda w, x: w * x, [1, 1, 1, math.nan], StopOnDivergence(checkpoint=path), last,
            enable_checkpointing=True,
        )  # fmt: skip
    assert step_of(path) == 2


def test_where_the_only_checkpoint_is_the_state_right_before_the_message_says_so(
    tmp_path: Path,
) -> None:
    message = diverged(tmp_path, [1.0, math.nan])
    assert f"The only checkpoint, {tmp_path / 'last.ckpt'} of step 1, is" in message
    assert step_of(tmp_path / "last.ckpt") == 1


class Spoil(pl.Callback):
    """Makes the weight, or the optimizer's momentum, infinite after a step."""

    def __init__(self, *, step: int, is_weight: bool) -> None:
        self.step = step
        self.is_weight = is_weight

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            weight = pl_module.weight
            state = trainer.optimizers[0].state[weight]
            state.setdefault("momentum_buffer", torch.zeros(()))
            target = weight.data if self.is_weight else state["momentum_buffer"]
            target.fill_(math.inf)


@pytest.mark.parametrize("is_weight", [True, False])
@pytest.mark.parametrize("step", [2, 3])
def test_a_state_that_is_not_finite_replaces_none(
    tmp_path: Path, is_weight: bool, step: int
) -> None:
    message = diverged(tmp_path, [1.0, 1.0, 1.0], Spoil(step=step, is_weight=is_weight))
    assert message.startswith(f"The weights are not finite after step {step}. The last good")
    assert f"of step {step - 1}, is in" in message
    assert step_of(tmp_path / "last.ckpt") == step - 1


def test_after_the_last_step_the_weights_are_checked_without_checkpoints(tmp_path: Path) -> None:
    stop = StopOnDivergence(checkpoint=tmp_path / "last.ckpt")
    with pytest.raises(TrainingDivergedError, match="not finite after step 2, the last one"):
        fit(lambda w, x: w * x, [1, 1], Spoil(step=2, is_weight=True), stop)


def test_at_the_last_step_embeddings_stand_for_the_next_loss(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    last = LastCheckpoint(path=path, every_n_steps=1)
    last.probe = lambda: torch.tensor([1.0, math.nan])
    with pytest.raises(TrainingDivergedError, match=r"embeddings .* step 3\. .* of step 2, is in"):
        fit(lambda w, x: w * x, [1, 1, 1], last, enable_checkpointing=True)
    assert step_of(path) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def interrupted_after_two(folder: Path) -> Path:
    """A run with checkpoints of the steps 2 (no next loss) and 1 (a good one)."""
    path = folder / "last.ckpt"
    last = LastCheckpoint(path=path, every_n_steps=1)

    class Interrupt(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 2:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        fit(lambda w, x: w * x, [1] * 4, Interrupt(), last, enable_checkpointing=True)
    assert (step_of(path), step_of(folder / "previous.ckpt")) == (2, 1)
    return path


def test_a_resumed_run_falls_back_when_its_first_loss_is_not_finite(tmp_path: Path) -> None:
    path = interrupted_after_two(tmp_path)
    message = diverged(tmp_path, [math.nan, 1.0, 1.0, 1.0], ckpt_path=path)
    assert "of step 1, is in" in message
    assert step_of(path) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_resumed_run_drops_the_older_one_after_its_first_step(tmp_path: Path) -> None:
    path = interrupted_after_two(tmp_path)
    last = LastCheckpoint(path=path, every_n_steps=100)
    trainer = quiet_trainer(last, enable_checkpointing=True, max_steps=4)
    batches = loader_of([torch.tensor(1.0)] * 4)
    trainer.fit(OneNumber(lambda w, x: w * x), batches, ckpt_path=path)
    assert step_of(path) == 4
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_origin_is_stored_in_each_checkpoint(tmp_path: Path) -> None:
    last = LastCheckpoint(path=tmp_path / "last.ckpt", every_n_steps=1)
    last.origin = {"tokenizer": "0123"}
    fit(lambda w, x: w * x, [1], last, enable_checkpointing=True)
    assert facts(tmp_path / "last.ckpt") == {
        "step": 1,
        "has_stopped": False,
        "zero_stage": 0,
        "origin": {"tokenizer": "0123"},
    }


def test_a_damaged_older_checkpoint_does_not_stop_a_resumed_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "last.ckpt"
    last = LastCheckpoint(path=path, every_n_steps=1)
    fit(lambda weight, x: weight * x, [1], last, enable_checkpointing=True)
    last._files.previous.write_bytes(b"half")
    assert last._look_around() == (True, None)
    assert "previous.ckpt: the checkpoint is damaged" in caplog.text


def test_the_names_of_a_new_folder_of_checkpoints_are_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(last_checkpoint, "sync_folder", synced.append)
    last = LastCheckpoint(path=tmp_path / "checkpoints" / "last.ckpt", every_n_steps=1)
    fit(lambda weight, x: weight * x, [1, 1], last, enable_checkpointing=True)
    assert synced == [tmp_path]
