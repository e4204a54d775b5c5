"""Log speed and peak memory of training; packed batches have no padding tokens."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch

from quarry.distributed import world
from quarry.types import RetrievalBatch


class Throughput(pl.Callback):
    """Log `perf/tokens_per_s` and `perf/queries_per_s` at every logging step.

    Only the time inside training steps counts, without evaluation, checkpoints and waiting for
    data. Tokens and queries are those of all ranks. On CUDA, `perf/peak_memory_gib` is the peak
    memory of tensors on rank 0. Its first value covers start and first steps, later ones all steps
    after those. `perf/gpu_memory_share` is
    the share of that GPU's memory that torch has reserved, from 0 to 1.
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
        device = trainer.strategy.root_device  # module.device is wrong under ZeRO 3
        if is_due and device.type == "cuda":
            torch.cuda.synchronize(device)  # queued kernels belong to these steps
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
