"""Show the progress of training: a bar on a terminal, lines in the log elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

from quarry.distributed import world
from quarry.evaluation.retrieval_times import RetrievalTimes
from quarry.runtime.progress import Progress
from quarry.types import RetrievalBatch


class TrainingProgress(pl.Callback):
    """Show optimizer step, loss, learning rate, tokens per second and remaining time.

    The loss is read from the device only where it is shown: in a line, and in the bar at every
    logging step. Tokens are rank 0's times the world size; the rate leaves out evaluations. The
    learning rate is also logged, as `train/learning_rate`.

    It must come before the evaluation callback, which runs at the end of a step.

    Args:
        times: where evaluations record their times.
        is_bar: True: a bar; False: lines; None: a bar if stderr is a terminal.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        *,
        times: RetrievalTimes | None = None,
        is_bar: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.times = RetrievalTimes() if times is None else times
        self.is_bar = is_bar
        self.clock = clock
        self._progress: Progress | None = None
        self._step = 0
        self._excluded_s = 0.0
        self._learning_rate: Any = None
        self._loss: Any = None

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        # read before the step: the scheduler changes it at the end
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        evaluated_s = self.times.encoding_s + self.times.searching_s
        if self._progress is None:  # not earlier: the evaluation before training must be over
            self._step = trainer.global_step
            self._progress = self._begin(trainer)
        else:
            self._progress.exclude(evaluated_s - self._excluded_s)
        self._excluded_s = evaluated_s
        self._progress.relabel(_epoch(trainer))

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: RetrievalBatch,
        batch_idx: int,
    ) -> None:
        assert self._progress is not None
        num_steps, self._step = trainer.global_step - self._step, trainer.global_step
        is_first = num_steps > 0 and self._loss is None
        self._loss = outputs["loss"]
        is_logged = num_steps > 0 and self._step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if is_logged:
            pl_module.log("train/learning_rate", float(self._learning_rate))
        self._progress.add(
            num_steps,
            num_tokens=batch.tokens.num_tokens * world.size(),
            shows_details=is_logged or is_first,
        )

    def on_train_end(self, *_: Any) -> None:
        self._close()

    def on_exception(self, *_: Any) -> None:
        self._close()

    def _begin(self, trainer: pl.Trainer) -> Progress:
        total = trainer.estimated_stepping_batches

        def details() -> dict[str, str]:
            # of all ranks, where the module logs it
            loss = trainer.callback_metrics.get("train/loss", self._loss)
            rate = float(self._learning_rate)
            return {"loss": f"{float(loss):.4g}", "learning rate": f"{rate:.2g}"}

        return Progress(
            total=int(total) if math.isfinite(total) else None,
            units="steps",
            num_done=trainer.global_step,
            details=details,
            is_bar=self.is_bar,
            clock=self.clock,
        )

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.close()


def _epoch(trainer: pl.Trainer) -> str:
    """Return "epoch 1 of 3", or "epoch 1" where the number of steps ends training."""
    is_known = trainer.max_steps == -1 and trainer.max_epochs is not None
    of = f" of {trainer.max_epochs}" if is_known else ""
    return f"epoch {trainer.current_epoch + 1}{of}"
