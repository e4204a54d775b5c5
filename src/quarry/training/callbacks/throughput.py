"""Logs how fast training is and what memory it takes; a packed batch has real tokens only."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch

from quarry.distributed import world
from quarry.types import RetrievalBatch


class Throughput(pl.Callback):
    """`perf/tokens_per_s` and `perf/queries_per_s`, each time the loggers are written.

    Counted is the time inside training steps; evaluation, checkpoints and waiting for data are not.
    Tokens and queries are those of all processes. On CUDA also `perf/peak_memory_gib`: the most
    that tensors took at one time, in the first process (the first value is
    that of start and first steps, the later ones are of all steps after those), and
    `perf/gpu_memory_share`: what torch has reserved of that GPU's memory, from 0 to 1.
    """

    def __init__(self) -> None:
        self._num_tokens = 0
        self._num_queries = 0
        self._seconds = 0.0
        self._mark = 0.0
        self._has_reset_peak = False

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
        device = trainer.strategy.root_device  # the module's own is wrong where ZeRO 3 placed it
        if is_due and device.type == "cuda":
            torch.cuda.synchronize(device)  # kernels still queued belong to these steps
        self._seconds += time.perf_counter() - self._mark
        if is_due:
            own = (self._num_tokens, self._num_queries)
            every = world.gathered(own)
            num_tokens, num_queries = (sum(numbers) for numbers in zip(*every, strict=True))
            rates = {
                "perf/tokens_per_s": num_tokens / self._seconds,
                "perf/queries_per_s": num_queries / self._seconds,
            }
            pl_module.log_dict(rates | self._peak_memory(device))
            self._num_tokens, self._num_queries, self._seconds = 0, 0, 0.0

    def _peak_memory(self, device: torch.device) -> dict[str, float]:
        if device.type != "cuda":
            return {}
        peak = torch.cuda.max_memory_allocated(device)
        if not self._has_reset_peak:
            self._has_reset_peak = True
            torch.cuda.reset_peak_memory_stats(device)
        _, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        return {
            "perf/peak_memory_gib": peak / 2**30,
            "perf/gpu_memory_share": reserved / total,
        }
