"""Save the random number generators in each checkpoint, so that a resumed run's dropout repeats."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from quarry.distributed import world


class RNGState(pl.Callback):
    """Save and restore torch's generators, CPU and CUDA, of every rank.

    Ranks draw different numbers. The order of the data has a seed of its own.
    """

    def __init__(self) -> None:
        self._restored: list[dict[str, Tensor]] | None = None

    def state_dict(self) -> dict[str, Any]:
        state = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state()
        return {"processes": world.gathered(state)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict["processes"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        restored, self._restored = self._restored, None
        if restored is not None:
            own = restored[world.rank()]
            torch.set_rng_state(own["cpu"].cpu())
            if "cuda" in own and torch.cuda.is_available():
                torch.cuda.set_rng_state(own["cuda"].cpu())
        elif world.rank() > 0:
            # all ranks have the same seed, for equal weights; their dropout must differ
            torch.manual_seed(torch.initial_seed() + world.rank())
