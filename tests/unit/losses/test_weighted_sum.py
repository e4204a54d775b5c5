"""A weighted sum of losses, and the weights that are refused."""

from __future__ import annotations

import math

import pytest

from helpers.losses import LearnedTemperature, assert_equal_with_gradients, ragged_inputs
from quarry.errors import UserError
from quarry.losses.base import loss_groups
from quarry.losses.info_nce import InfoNCE
from quarry.losses.kl_distillation import KLDistillation
from quarry.losses.weighted_sum import WeightedSum


def summed(**weights: float) -> WeightedSum:
    losses = {"a": InfoNCE(temperature=0.05), "b": KLDistillation(temperature=0.1)}
    return WeightedSum(losses=losses, weights=weights)


def test_equals_its_parts() -> None:
    inputs, loss = ragged_inputs(), summed(a=0.5, b=2.0)
    of_a, of_b = (each(inputs) for each in loss.losses.values())
    assert_equal_with_gradients(loss, inputs, 0.5 * of_a.loss + 2 * of_b.loss)
    assert set(loss(inputs).metrics) == {
        "a/loss", "a/accuracy", "a/positive_similarity", "b/loss", "b/agreement",
    }  # fmt: skip


def test_a_loss_with_weight_0_is_neither_computed_nor_needed() -> None:
    loss = summed(a=1.0, b=0.0)
    assert set(loss(ragged_inputs(scores=None)).metrics) >= {"a/loss"}
    assert not any(inner.needs_scores for inner in loss.inner_losses())


def test_parameters_of_the_losses_inside_are_trained() -> None:
    inner = LearnedTemperature(dim=8)
    loss = WeightedSum(losses={"a": inner}, weights={"a": 1.0})
    (group,) = loss_groups(loss)
    assert group["params"] == [inner.log_temperature, inner.between]


@pytest.mark.parametrize(
    ("weights", "key"),
    [
        ({"a": -1.0, "b": 1.0}, r"loss\.weights\.a=-1\.0"),
        ({"a": math.nan, "b": 1.0}, r"loss\.weights\.a=nan"),
        ({"a": 0.0, "b": 0.0}, r"loss\.weights=.*all are 0"),
        ({"a": 1.0}, r"loss\.weights=.*a, b"),
    ],
)
def test_impossible_weights_are_refused(weights: dict[str, float], key: str) -> None:
    with pytest.raises(UserError, match=key):
        summed(**weights)
