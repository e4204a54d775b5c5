"""Record the training loss, for the learning curve at the end of a run."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from quarry.distributed import world


class LossHistory(pl.Callback):
    """Record `points`, (step, loss) at every logging step; a resumed run continues them."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = [(int(step), float(loss)) for step, loss in state_dict["points"]]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        step = trainer.global_step
        is_new = step > 0 and (not self.points or self.points[-1][0] != step)
        if is_new and step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            # each rank has its share of the loss; the mean is the loss of all queries
            loss = float(world.total(outputs["loss"])) / world.size()
            self.points.append((step, loss * trainer.accumulate_grad_batches))
