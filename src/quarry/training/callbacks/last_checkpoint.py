"""Write `last.ckpt`, from which `task=resume` continues; stop cleanly on Ctrl-C."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from quarry.distributed import world
from quarry.errors import Interrupted, SharedError, UserError
from quarry.runtime.files import put_in_place, remove
from quarry.runtime.own_command import own_command

logger = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Write the full training state every few optimizer steps, at the last one and on interrupts.

    The last step may be an early stop. A checkpoint is replaced only by a complete one. The first
    Ctrl-C (or SIGTERM) on any rank lets the current step finish, saves, and raises `Interrupted`
    on all ranks. A second one raises it at once, without saving.

    Args:
        path: of the checkpoint: a file, or under ZeRO a folder of shards.
        every_n_steps: optimizer steps between two saves.
    """

    def __init__(self, *, path: str | Path, every_n_steps: int) -> None:
        if every_n_steps < 1:
            raise UserError(f"last_checkpoint.every_n_steps={every_n_steps} must be at least 1.")
        self.path = Path(path)
        self.every_n_steps = every_n_steps
        self.last_saved_step = 0
        self._has_stopped = False
        self._interrupted_by: str | None = None
        self._old_handlers: dict[signal.Signals, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"has_stopped": self._has_stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._has_stopped = state_dict["has_stopped"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.last_saved_step = trainer.global_step
        trainer.should_stop = (
            trainer.should_stop or self._has_stopped
        )  # Lightning does not restore it
        paths = world.gathered(str(self.path))
        if len(set(paths)) > 1:
            raise SharedError(
                f"The ranks have different run directories: {paths[0]} and others. "
                "Fix: name one for all, hydra.run.dir=DIR"
            )
        world.first_does(self._remove_unfinished)
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._old_handlers[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: nothing to catch here
                return
        # Lightning broadcasts a SIGTERM flag before every batch. Signals are handled here, and on
        # GPUs the broadcast would synchronize the device for each batch
        loop: Any = trainer.fit_loop.epoch_loop
        loop._broadcast_sigterm_tensor = lambda: None

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        self._has_stopped = trainer.should_stop
        is_last = step >= trainer.estimated_stepping_batches or trainer.should_stop
        if step > self.last_saved_step and (step % self.every_n_steps == 0 or is_last):
            self._save(trainer)
        # within an optimizer step the accumulated gradients would be lost: finish it first
        if not trainer.fit_loop.epoch_loop._should_accumulate() and self._is_interrupted():
            if step > self.last_saved_step:
                self._save(trainer)
            self._stop(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._is_interrupted():  # during the last evaluation: its step is saved
            self._stop(trainer)

    def on_exception(self, *_: Any) -> None:
        self._restore_handlers()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers.clear()

    def _stop(self, trainer: pl.Trainer) -> None:
        assert self._interrupted_by is not None
        raise Interrupted(
            f"{self._interrupted_by} after step {trainer.global_step}. Saved: {self.path}. "
            f"Continue with: {own_command('train')} task=resume run={self.path.parent.parent}",
            number=signal.Signals[self._interrupted_by],
        )

    def _is_interrupted(self) -> bool:
        """Return whether any rank was interrupted; a collective operation, so that all stop."""
        own = 0 if self._interrupted_by is None else signal.Signals[self._interrupted_by].value
        number = world.largest(own)
        if number and self._interrupted_by is None:
            self._interrupted_by = signal.Signals(number).name
        return number > 0

    def _save(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        partial = self.path.with_name(f".step-{step}.tmp")  # the same name on all ranks
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            trainer.save_checkpoint(
                partial, weights_only=False
            )  # returns when all ranks have written
            world.first_does(lambda: put_in_place(partial, self.path))
        finally:
            if world.rank() == 0:
                remove(partial)
        self.last_saved_step = step

    def _remove_unfinished(self) -> None:
        """Remove what a process left that was killed while it saved."""
        for partial in self.path.parent.glob(".step-*.tmp"):
            remove(partial)

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._interrupted_by is not None:
            kept = f"{self.path} of step {self.last_saved_step}"
            raise Interrupted(
                f"{self._interrupted_by}, then {name}: stopped at once. Saved: "
                f"{kept if self.path.exists() else 'nothing'}",
                number=number,
                is_shared=False,
            )
        self._interrupted_by = name
        logger.warning("%s: saving after this step (once more stops at once, unsaved)", name)
