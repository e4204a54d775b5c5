"""Profile some training steps with torch.profiler, as a callback of Lightning's Trainer."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch.profiler import ProfilerActivity, profile


class LightningProfiler(pl.Callback):
    """Write a trace of the GPU's work, and end the process.

    Args:
        path: of the trace, in Chrome's JSON format.
        num_warm_up: steps before.
        num_steps: steps in the trace.
    """

    def __init__(self, *, path: str, num_warm_up: int, num_steps: int) -> None:
        self.path = path
        self.num_warm_up = num_warm_up
        self.num_steps = num_steps
        self._profile = profile(activities=[ProfilerActivity.CUDA])
        self._step = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self._step += 1
        if self._step == self.num_warm_up:
            torch.cuda.synchronize()
            self._profile.start()
        elif self._step == self.num_warm_up + self.num_steps:
            torch.cuda.synchronize()
            self._profile.stop()
            self._profile.export_chrome_trace(self.path)
            raise SystemExit(0)
