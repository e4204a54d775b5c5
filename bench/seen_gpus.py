"""Record which GPUs a training job saw, and when, for `gpu_sweep.py`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytorch_lightning as pl

from processes import VISIBLE
from quarry.runtime.files import write_json


class SeenGpus(pl.Callback):
    """Write CUDA_VISIBLE_DEVICES and the times of the first and last step to a JSON file.

    Args:
        path: of the file.
    """

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)
        self._begin = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin = time.time()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        gpus = os.environ.get(VISIBLE, "")
        write_json(self.path, {"gpus": gpus, "begin": self._begin, "end": time.time()})
