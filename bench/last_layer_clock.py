"""Time optimizer steps with and without the pooled last layer, in turns."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from measuring import peak, synchronize
from quarry.runtime.files import write_json
from quarry.types import RetrievalBatch
from result_line import Result

POOLED, PLAIN = "pooled", "plain"


class LastLayerClock(pl.Callback):
    """Pool in the last layer in even optimizer steps, not in odd ones; end when all are timed.

    The first two steps are warm-up. For one rank.

    Args:
        path: of the result.
        num_steps: timed steps of each kind.
    """

    def __init__(self, *, path: str, num_steps: int) -> None:
        self.path = Path(path)
        self.num_steps = num_steps
        self._rates: dict[str, list[float]] = {POOLED: [], PLAIN: []}
        self._start = self._mark = time.perf_counter()
        self._warm_up_s = 0.0
        self._num_tokens = 0
        self._num_steps = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        assert pl_module.model.pools_in_last_layer
        self._start = self._mark = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: RetrievalBatch, batch_idx: int
    ) -> None:
        pl_module.model.pools_in_last_layer = self._kind == POOLED

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: RetrievalBatch,
        batch_idx: int,
    ) -> None:
        self._num_tokens += batch.tokens.num_tokens
        if trainer.global_step == self._num_steps:
            return  # the optimizer step needs further contrastive batches
        synchronize()
        now = time.perf_counter()
        if self._num_steps >= 2:
            self._rates[self._kind].append(self._num_tokens / (now - self._mark))
        else:
            self._warm_up_s = now - self._start
        self._num_steps, self._num_tokens, self._mark = trainer.global_step, 0, now
        if len(self._rates[PLAIN]) == self.num_steps:
            write_json(self.path, self._result())
            raise SystemExit(0)

    @property
    def _kind(self) -> str:
        """Return the kind of the current step."""
        return PLAIN if self._num_steps % 2 else POOLED

    def _result(self) -> Result:
        medians = {kind: statistics.median(rates) for kind, rates in self._rates.items()}
        return {
            "tokens_per_s": medians[POOLED],
            "tokens_per_s_plain": medians[PLAIN],
            "tokens_per_s_of_steps": {
                kind: [round(rate) for rate in rates] for kind, rates in self._rates.items()
            },
            "warm_up_s": self._warm_up_s,
            **peak(),
        }
