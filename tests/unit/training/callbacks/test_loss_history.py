"""The losses behind the learning curve: one a logged update, true to scale, kept over a resume."""

from __future__ import annotations

from helpers.training import fit
from quarry.training.callbacks.loss_history import LossHistory


def test_one_point_an_step() -> None:
    history = LossHistory()
    fit(lambda weight, x: 0 * weight + x, [5, 4, 3], history)
    assert history.points == [(1, 5.0), (2, 4.0), (3, 3.0)]


def test_only_steps_that_are_logged() -> None:
    history = LossHistory()
    fit(lambda weight, x: 0 * weight + x, [7, 6, 5, 4, 3], history, log_every_n_steps=2)
    assert history.points == [(2, 6.0), (4, 4.0)]


def test_an_accumulated_step_has_one_point_at_its_own_scale() -> None:
    history = LossHistory()
    fit(lambda weight, x: 0 * weight + x, [8, 7, 6, 5, 4, 3], history, accumulate_grad_batches=2)
    # the loss of the batch that completes the update, not divided by 2
    assert history.points == [(1, 7.0), (2, 5.0), (3, 3.0)]


def test_the_state_survives_a_checkpoint() -> None:
    history, restored = LossHistory(), LossHistory()
    fit(lambda weight, x: 0 * weight + x, [5, 4], history)
    restored.load_state_dict({"points": [list(point) for point in history.state_dict()["points"]]})
    assert restored.points == [(1, 5.0), (2, 4.0)]
