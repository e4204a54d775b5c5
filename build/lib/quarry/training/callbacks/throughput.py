"""Logs how fast training is, in real tokens: nothing in a packed batch is padding."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch

from quarry.types import RetrievalBatch


class Throughput(pl.Callback):
    """`perf/tokens_per_s` and `perf/queries_per_s`, each time the loggers are written.

    Counted is the time inside training steps; evaluation, checkpoints and waiting for data are not.
    """

    def __init__(self) -> None:
        self._num_tokens = 0
        self._num_queries = 0
        self._seconds = 0.0
        self._mark = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: RetrievalBatch,
        batch_idx: int,
    ) -> None:
        self._num_tokens += batch.tokens.num_tokens
        self._num_queries += batch.num_queries
        is_due = (batch_idx + 1) % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if is_due and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # kernels still queued belong to these steps
        self._seconds += time.perf_counter() - self._mark
        if is_due:
            rates = {
                "perf/tokens_per_s": self._num_tokens / self._seconds,
                "perf/queries_per_s": self._num_queries / self._seconds,
            }
            pl_module.log_dict(rates)
            self._num_tokens, self._num_queries, self._seconds = 0, 0, 0.0
