"""Measure the cost of a run, over all its resumes, for `summary.json`."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch

from quarry.distributed import world
from quarry.evaluation.retrieval_times import RetrievalTimes
from quarry.evaluation.run_cost import CPU, RunCost
from quarry.types import RetrievalBatch


class CostMeter(pl.Callback):
    """Measure time, tokens and peak memory of training and tests; `cost` returns the sum so far.

    Its state is in every checkpoint, so a resumed run continues the sum. Work after the last
    checkpoint of a killed run is repeated, and counts once.

    It must come after `Throughput`, which synchronizes the device at the end of a step, and before
    the evaluation callback, whose time is not part of a step.

    Args:
        times: where evaluations record their times; None: there are none.
    """

    def __init__(self, *, times: RetrievalTimes | None = None) -> None:
        self.times = RetrievalTimes() if times is None else times
        self._start = time.perf_counter()
        self._wall_before_s = 0.0
        self._training_s = 0.0
        self._mark = 0.0
        self._tokens_before = 0  # of all ranks, before the resume
        self._own_tokens = 0
        self._peak_device_bytes = 0
        self._gathered: tuple[int, int, int] | None = None
        self._device = torch.device("cpu")
        self._num_devices = 1

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far; a collective operation."""
        return {
            "wall_s": self._wall_s,
            "training_s": self._training_s,
            "encoding_s": self.times.encoding_s,
            "searching_s": self.times.searching_s,
            "num_tokens": self._num_tokens(),
            "peak_device_bytes": self._peak_device_bytes,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._wall_before_s = float(state_dict["wall_s"])
        self._training_s = float(state_dict["training_s"])
        # a baseline may have been measured already
        self.times.encoding_s += float(state_dict["encoding_s"])
        self.times.searching_s += float(state_dict["searching_s"])
        self._tokens_before = int(state_dict["num_tokens"])
        self._peak_device_bytes = int(state_dict["peak_device_bytes"])

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device
        self._num_devices = world.size()

    def on_train_batch_start(self, *_: Any) -> None:
        self._note_peak()  # of an evaluation before this step
        self._mark = time.perf_counter()

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._note_peak()  # before `Throughput` resets it, after the first steps

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: RetrievalBatch,
        batch_idx: int,
    ) -> None:
        self._training_s += time.perf_counter() - self._mark
        self._own_tokens += batch.tokens.num_tokens
        self._note_peak()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._gather()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._gather()

    def cost(self) -> RunCost:
        """Return the cost so far; other ranks' is that of the last end of training or a test."""
        own = (self._own_tokens + self._tokens_before, self._peak_device_bytes, _peak_host_bytes())
        num_tokens, device_bytes, host_bytes = self._gathered or own
        is_gpu = self._device.type == "cuda"
        return RunCost(
            wall_hours=self._wall_s / 3600,
            training_s=self._training_s,
            encoding_s=self.times.encoding_s,
            searching_s=self.times.searching_s,
            num_devices=self._num_devices,
            device=torch.cuda.get_device_name(self._device) if is_gpu else CPU,
            num_trained_tokens=num_tokens,
            peak_device_memory_gib=device_bytes / 2**30 if is_gpu else None,
            peak_host_memory_gib=max(host_bytes, _peak_host_bytes()) / 2**30,
        )

    @property
    def _wall_s(self) -> float:
        return self._wall_before_s + time.perf_counter() - self._start

    def _num_tokens(self) -> int:
        return self._tokens_before + sum(world.gathered(self._own_tokens))

    def _gather(self) -> None:
        self._note_peak()
        every = world.gathered((self._peak_device_bytes, _peak_host_bytes()))
        device_bytes, host_bytes = (max(numbers) for numbers in zip(*every, strict=True))
        self._gathered = (self._num_tokens(), device_bytes, host_bytes)

    def _note_peak(self) -> None:
        if self._device.type == "cuda":
            found = torch.cuda.max_memory_allocated(self._device)
            self._peak_device_bytes = max(self._peak_device_bytes, found)


def _peak_host_bytes() -> int:
    """Return the peak resident memory of this process; Linux counts in KiB, macOS in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
