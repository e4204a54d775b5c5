"""A metric that never comes, or a direction that is wrong, is told before training."""

from __future__ import annotations

from typing import Any

import pytest
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint

from quarry.errors import UserError
from quarry.training.callbacks.best_model import BestModel
from quarry.training.monitors import check_monitors

NAMES = ["val/scifact/ndcg_at_10", "val/mean/ndcg_at_10"]


def check(*callbacks: Callback, names: list[str] = NAMES, every_n_steps: int = 10) -> None:
    check_monitors(callbacks, names=names, every_n_steps=every_n_steps)


def best_model(monitor: str) -> BestModel:
    return BestModel(monitor=monitor, folder="best", save_model=lambda folder, facts: None)


@pytest.mark.parametrize(
    "callback",
    [
        EarlyStopping("val/mean/ndcg_at_10", mode="max"),
        ModelCheckpoint(monitor="val/scifact/ndcg_at_10", mode="max"),
        best_model("val/mean/ndcg_at_10"),
        EarlyStopping("train/loss"),
        EarlyStopping("perf/tokens_per_s", mode="max"),
        ModelCheckpoint(),
        Callback(),
    ],
    ids=lambda callback: f"{type(callback).__name__} {getattr(callback, 'monitor', None)}",
)
def test_what_can_work_passes(callback: Callback) -> None:
    check(callback)


@pytest.mark.parametrize("monitor", ["val/mean/ndcg@10", "val/scifcat/ndcg_at_10", "loss", ""])
def test_a_misspelt_metric_is_refused_with_the_list_of_what_there_is(monitor: str) -> None:
    with pytest.raises(UserError) as caught:
        check(best_model(monitor))
    message = str(caught.value)
    assert f"BestModel monitors {monitor}, which nothing logs" in message
    assert all(name in message for name in NAMES)


def test_the_likely_name_is_suggested() -> None:
    with pytest.raises(UserError, match=r"Did you mean val/scifact/ndcg_at_10\?"):
        check(EarlyStopping("val/scifcat/ndcg_at_10", mode="max"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": []}, "With benchmark=none there is no evaluation"),
        ({"every_n_steps": 0}, r"evaluation\.every_n_steps=0 nothing is evaluated"),
    ],
)
def test_a_metric_that_never_comes_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(best_model("val/mean/ndcg_at_10"), **settings)


def test_lightnings_default_direction_would_keep_the_worst() -> None:
    with pytest.raises(UserError, match="better when higher.*mode=max"):
        check(ModelCheckpoint(monitor="val/mean/ndcg_at_10"))
