"""The clock as a callback of Lightning's Trainer: everything between two updates is in the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from measuring import Clock
from quarry.distributed import world
from quarry.runtime.files import write_json
from quarry.types import RetrievalBatch


class LightningClock(pl.Callback):
    """Ends the process when all is measured: what would be saved after it is of no use.

    In a run of several processes each has a clock, which counts the tokens of all; the first one
    writes its own times and the largest peak.

    Args:
        path: where the result goes.
        num_warm_up, num_steps, num_steps_per_window: see `measuring.Clock`.
    """

    def __init__(
        self, *, path: str, num_warm_up: int, num_steps: int, num_steps_per_window: int
    ) -> None:
        self.path = Path(path)
        self.clock = Clock(
            num_warm_up=num_warm_up,
            num_steps=num_steps,
            num_steps_per_window=num_steps_per_window,
        )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: RetrievalBatch,
        batch_idx: int,
    ) -> None:
        if not self.clock.tick(sum(world.gathered(batch.tokens.num_tokens))):
            return
        result, *others = world.gathered(self.clock.result())
        if "peak_gib" in result:
            result["peak_gib"] = max(each["peak_gib"] for each in (result, *others))
        if world.rank() == 0:
            write_json(self.path, result)
        raise SystemExit(0)
