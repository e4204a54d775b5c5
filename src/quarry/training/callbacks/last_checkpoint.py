"""Write `last.ckpt`, from which `task=resume` continues; stop cleanly on Ctrl-C."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from quarry.distributed import world
from quarry.errors import Interrupted, SharedError, UserError
from quarry.runtime.files import remove, sync, sync_folder
from quarry.training.callbacks.divergence import StopOnDivergence, TrainingDivergedError
from quarry.training.checkpoint_files import CheckpointFiles, facts, write_facts
from quarry.training.finite import are_finite
from quarry.training.state import preserved_training_state

logger = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Write the full training state every few optimizer steps, at the last one and on interrupts.

    The last step may be an early stop. A checkpoint is replaced only by a complete one, whose
    weights and optimizer states are finite. It is good once the loss of the next step is finite,
    too; until then the one before stays beside it. At the last step, `probe` stands for that loss.
    If training diverges, the last good checkpoint is what remains.

    The first Ctrl-C (or SIGTERM) on any rank lets the current step finish, saves, and raises
    `Interrupted` on all ranks. A second one raises it at once, without saving.

    Args:
        path: of the checkpoint: a file, or under ZeRO a folder of shards.
        every_n_steps: optimizer steps between two saves.

    Attributes:
        origin: digests of what the run began with, stored in each checkpoint.
        zero_stage: of the strategy, stored likewise; 0 without ZeRO.
        resume_command: continues the run, for the message of an interrupt.
        probe: returns embeddings of some texts, or is None; a collective operation.
    """

    def __init__(self, *, path: str | Path, every_n_steps: int) -> None:
        if every_n_steps < 1:
            raise UserError(f"last_checkpoint.every_n_steps={every_n_steps} must be at least 1.")
        self.path = Path(path)
        self.every_n_steps = every_n_steps
        self.origin: Mapping[str, str] = {}
        self.zero_stage = 0
        self.resume_command = "task=resume"
        self.probe: Callable[[], Tensor] | None = None
        self.last_saved_step = 0
        self._files = CheckpointFiles(self.path)
        self._has_saved = False
        self._is_good = True
        self._previous_step: int | None = None
        self._has_stopped = False
        self._interrupted_by: str | None = None
        self._old_handlers: dict[signal.Signals, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "has_stopped": self._has_stopped,
            "origin": dict(self.origin),
            "zero_stage": self.zero_stage,
        }

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
        self._has_saved, self._previous_step = world.first_does(self._look_around)
        self._is_good = not self._has_saved  # of what is loaded, the next loss will tell
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._old_handlers[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: nothing to catch here
                return
        # Lightning broadcasts a SIGTERM flag before every batch. Signals are handled here, and on
        # GPUs the broadcast would synchronize the device for each batch
        loop: Any = trainer.fit_loop.epoch_loop
        loop._broadcast_sigterm_tensor = lambda: None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        step = trainer.global_step
        self._has_stopped = trainer.should_stop
        is_last = step >= trainer.estimated_stepping_batches or trainer.should_stop
        if step > self.last_saved_step:
            if not self._is_good:
                self._confirm(trainer, outputs["loss"])
            if step % self.every_n_steps == 0 or is_last:
                self._save(trainer, pl_module, is_last=is_last)
        # within an optimizer step the accumulated gradients would be lost: finish it first
        if not trainer.fit_loop.epoch_loop._should_accumulate() and self._is_interrupted():
            if step > self.last_saved_step:
                self._save(trainer, pl_module, is_last=is_last)
            self._stop(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._is_interrupted():  # during the last evaluation: its step is saved
            self._stop(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._restore_handlers()
        if isinstance(exception, TrainingDivergedError):
            exception.kept = self._fallen_back()

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
            f"Continue with: {self.resume_command}",
            number=signal.Signals[self._interrupted_by],
        )

    def _is_interrupted(self) -> bool:
        """Return whether any rank was interrupted; a collective operation, so that all stop."""
        own = 0 if self._interrupted_by is None else signal.Signals[self._interrupted_by].value
        number = world.largest(own)
        if number and self._interrupted_by is None:
            self._interrupted_by = signal.Signals(number).name
        return number > 0

    def _confirm(self, trainer: pl.Trainer, loss: Tensor) -> None:
        """Settle that the newest checkpoint is good, by the first step after it.

        It reads from the device once for each checkpoint, not at each step.
        """
        self._look_for_divergence(trainer)
        if world.largest(int(not loss.isfinite().all())):
            raise TrainingDivergedError(f"The loss is not finite at step {trainer.global_step}")
        world.first_does(self._files.confirm)
        self._is_good, self._previous_step = True, None

    def _look_for_divergence(self, trainer: pl.Trainer) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, StopOnDivergence):
                callback.look()

    def _check(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, is_last: bool) -> None:
        """Refuse to save a state that cannot be continued.

        Raises:
            TrainingDivergedError: a weight or an optimizer state is not finite, or, at the last
                step, an embedding.
        """
        self._look_for_divergence(trainer)
        step = trainer.global_step
        if not are_finite(pl_module, trainer.optimizers):
            raise TrainingDivergedError(f"The weights are not finite after step {step}")
        if is_last and self.probe is not None:
            with preserved_training_state(pl_module):
                is_bad = not self.probe().isfinite().all()
            if world.largest(int(is_bad)):
                raise TrainingDivergedError(f"The embeddings are not finite after step {step}")

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, is_last: bool) -> None:
        self._check(trainer, pl_module, is_last=is_last)
        step = trainer.global_step
        partial = self.path.with_name(f".step-{step}.tmp")  # the same name on all ranks
        if not self.path.parent.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(self.path.parent.parent)

        def put() -> None:
            if partial.is_dir():
                write_facts(partial, {"step": step, **self.state_dict()})
            self._files.put(partial, is_good=is_last)

        try:
            trainer.save_checkpoint(
                partial, weights_only=False
            )  # returns when all ranks have written
            if partial.is_dir():
                sync(partial)  # on each host what was written there
                world.barrier()
            world.first_does(put)
        finally:
            if world.rank() == 0:
                remove(partial)
        self._previous_step = self.last_saved_step if self._has_saved and not is_last else None
        self.last_saved_step, self._has_saved, self._is_good = step, True, is_last

    def _look_around(self) -> tuple[bool, int | None]:
        """Remove what a process left that was killed while it saved; return what there is.

        Returns:
            whether there is a checkpoint, and the step of the one before it.
        """
        for partial in [*self.path.parent.glob(".step-*.tmp"), *self.path.parent.glob("..step-*")]:
            remove(partial)
        previous, step = self._files.previous, None
        try:
            step = facts(previous).get("step") if previous.exists() else None
        except UserError as error:  # the newest is what the run continues from
            logger.warning("Not fallen back to if training diverges: %s", error)
        return self.path.exists(), step

    def _fallen_back(self) -> str:
        """Leave the last good checkpoint alone; return a sentence that says which that is."""
        if not self._has_saved:
            return "No checkpoint had been written yet."
        if not self._is_good and self._previous_step is None:
            return (
                f"The only checkpoint, {self.path} of step {self.last_saved_step}, is the state "
                "right before."
            )
        step: int | None = self.last_saved_step
        if not self._is_good:
            step = self._previous_step
            if world.rank() == 0:
                self._files.fall_back()
        return (
            f"The last good state, of step {step}, is in {self.path}; task=resume continues from "
            "it."
        )

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
