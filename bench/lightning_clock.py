"""Time optimizer steps of Lightning's Trainer, with everything between them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from measuring import Clock, synchronize
from quarry.distributed import world
from quarry.runtime.files import remove, write_json
from quarry.types import RetrievalBatch


class LightningClock(pl.Callback):
    """Time optimizer steps, and end the process after the last one.

    An optimizer step may have several contrastive batches. Each rank has a clock that counts the
    tokens of all ranks; rank 0 writes its own times and the largest peaks.

    Args:
        path: of the result.
        num_warm_up, num_steps, num_steps_per_window: see `measuring.Clock`.
        saves_checkpoint: also time the writing of a checkpoint beside `path`, and remove it.
    """

    def __init__(
        self,
        *,
        path: str,
        num_warm_up: int,
        num_steps: int,
        num_steps_per_window: int,
        saves_checkpoint: bool = False,
    ) -> None:
        self.path = Path(path)
        self.saves_checkpoint = saves_checkpoint
        self.clock = Clock(
            num_warm_up=num_warm_up,
            num_steps=num_steps,
            num_steps_per_window=num_steps_per_window,
        )
        self._num_tokens = 0
        self._num_steps = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._num_steps = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: RetrievalBatch,
        batch_idx: int,
    ) -> None:
        self._num_tokens += batch.tokens.num_tokens
        if trainer.global_step == self._num_steps:
            return  # the optimizer step needs further contrastive batches
        num_tokens, self._num_tokens = self._num_tokens, 0
        self._num_steps = trainer.global_step
        if not self.clock.tick(sum(world.gathered(num_tokens))):
            return
        every = world.gathered(self.clock.result())
        result = every[0]
        for key in ("peak_gib", "peak_reserved_gib"):
            if key in result:
                result[key] = max(each[key] for each in every)
        if self.saves_checkpoint:
            result["save_s"] = self._save_s(trainer)
        if world.rank() == 0:
            write_json(self.path, result)
        raise SystemExit(0)

    def _save_s(self, trainer: pl.Trainer) -> float:
        """Return the seconds of a save as in `LastCheckpoint`, until all ranks have written.

        A collective operation.
        """
        folder = self.path.with_name("timed.ckpt")
        synchronize()
        start = time.perf_counter()
        trainer.save_checkpoint(folder, weights_only=False)
        save_s = max(world.gathered(time.perf_counter() - start))
        world.first_does(lambda: remove(folder))
        return save_s
