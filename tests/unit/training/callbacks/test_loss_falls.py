from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from quarry.errors import UserError
from quarry.training.callbacks.loss_falls import LossFalls


def _trainer() -> Any:
    return SimpleNamespace(callback_metrics={}, should_stop=False, global_step=2)


def _after(callback: LossFalls, trainer: Any, loss: float) -> None:
    trainer.callback_metrics["train/loss"] = loss
    callback.on_train_batch_end(trainer)


def test_it_stops_when_the_loss_has_fallen() -> None:
    callback, trainer = LossFalls(fraction=0.1), _trainer()
    _after(callback, trainer, 2.0)
    _after(callback, trainer, 0.3)
    assert not trainer.should_stop
    _after(callback, trainer, 0.2)
    assert trainer.should_stop
    callback.on_train_end(trainer, None)  # type: ignore[arg-type]


def test_a_loss_that_stays_is_an_error_with_both_losses() -> None:
    callback, trainer = LossFalls(fraction=0.1), _trainer()
    _after(callback, trainer, 2.0)
    _after(callback, trainer, 1.5)
    with pytest.raises(UserError, match=r"loss 2 to 1\.5 in 2 steps"):
        callback.on_train_end(trainer, None)  # type: ignore[arg-type]


def test_a_fraction_is_between_0_and_1() -> None:
    with pytest.raises(UserError, match=r"fraction=1\.0"):
        LossFalls(fraction=1.0)
