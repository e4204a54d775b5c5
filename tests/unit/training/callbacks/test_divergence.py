"""A run that diverges stops before the update that would spoil the weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from helpers.training import OneNumber, fit, loader_of, quiet_trainer
from quarry.errors import UserError
from quarry.training.callbacks.divergence import StopOnDivergence, TrainingDivergedError


def test_a_healthy_run_is_left_alone_and_its_gradient_norm_is_logged(tmp_path: Path) -> None:
    stop = StopOnDivergence(checkpoint=tmp_path / "last.ckpt")
    module, trainer = fit(lambda weight, x: -3 * weight * x, [1, 2], stop)
    # the gradients are -3 and -6, the rate 0.5, the start 1
    assert module.weight.item() == pytest.approx(1 + 0.5 * 3 + 0.5 * 6)
    assert trainer.callback_metrics["train/gradient_norm"].item() == pytest.approx(6)


def test_the_norm_is_that_before_clipping(tmp_path: Path) -> None:
    stop = StopOnDivergence(checkpoint=tmp_path / "last.ckpt")
    module, trainer = fit(lambda weight, x: 8 * weight * x, [1], stop, gradient_clip_val=1.0)
    assert module.weight.item() == pytest.approx(1 - 0.5 * 1, abs=1e-5)
    assert trainer.callback_metrics["train/gradient_norm"].item() == pytest.approx(8)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_before_the_step(tmp_path: Path, bad: float) -> None:
    stop = StopOnDivergence(checkpoint=tmp_path / "last.ckpt")
    seen: list[float] = []

    def loss(weight, x):  # type: ignore[no-untyped-def]
        seen.append(weight.item())
        return weight * x

    with pytest.raises(TrainingDivergedError, match=r"loss is -?(nan|inf) at step 2.*No check"):
        fit(loss, [1, bad, 1], stop)
    assert seen == [1, 0.5]  # the third step never came


def test_a_gradient_that_is_no_number_stops_before_the_step(tmp_path: Path) -> None:
    stop = StopOnDivergence(checkpoint=tmp_path / "last.ckpt")
    module = OneNumber(lambda weight, x: (weight * 0 + x).sqrt())  # at x = 0: loss 0, slope inf * 0
    trainer = quiet_trainer(stop)
    with pytest.raises(TrainingDivergedError, match=r"gradient norm is nan at step 3"):
        trainer.fit(module, loader_of([torch.tensor(x) for x in (1.0, 1.0, 0.0)]))
    assert module.weight.item() == 1  # and no nan


def test_a_bad_loss_anywhere_in_an_accumulated_step_stops_it(tmp_path: Path) -> None:
    stop = StopOnDivergence(checkpoint=tmp_path / "last.ckpt")
    with pytest.raises(TrainingDivergedError, match="at step 2"):
        fit(lambda w, x: w * x, [1, 1, math.nan, 1], stop, accumulate_grad_batches=2)
    with pytest.raises(TrainingDivergedError, match="at step 2"):
        fit(lambda w, x: w * x, [1, 1, 1, math.nan], stop, accumulate_grad_batches=2)


@pytest.mark.parametrize("num_batches", [2, 3])
def test_a_fused_optimizer_leaves_the_bad_step_out_and_the_run_stops_before_the_next(
    tmp_path: Path, num_batches: int
) -> None:
    module = OneNumber(lambda weight, x: weight * x, is_fused=True)
    trainer = quiet_trainer(StopOnDivergence(checkpoint=tmp_path / "last.ckpt"))
    batches = [torch.tensor(x) for x in (1.0, math.nan, 1.0)[:num_batches]]
    with pytest.raises(TrainingDivergedError, match="loss is nan at step 2"):
        trainer.fit(module, loader_of(batches))
    assert module.weight.item() == pytest.approx(0.5)  # the first update alone


def test_a_healthy_run_with_a_fused_optimizer_is_left_alone(tmp_path: Path) -> None:
    module = OneNumber(lambda weight, x: -3 * weight * x, is_fused=True)
    trainer = quiet_trainer(StopOnDivergence(checkpoint=tmp_path / "last.ckpt"))
    trainer.fit(module, loader_of([torch.tensor(1.0), torch.tensor(2.0)]))
    assert module.weight.item() == pytest.approx(1 + 0.5 * 3 + 0.5 * 6)
    assert trainer.callback_metrics["train/gradient_norm"].item() == pytest.approx(6)


def test_the_message_names_the_checkpoint_and_remedies(tmp_path: Path) -> None:
    checkpoint = tmp_path / "last.ckpt"
    checkpoint.touch()
    with pytest.raises(UserError) as info:
        fit(lambda w, x: w * x, [math.nan], StopOnDivergence(checkpoint=checkpoint))
    message = str(info.value)
    assert f"is in {checkpoint}" in message
    assert "optimizer.lr" in message
    assert "trainer.gradient_clip_val" in message
