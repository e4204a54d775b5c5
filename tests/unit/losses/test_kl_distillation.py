"""KL distillation against plain torch, a query at a time."""

from __future__ import annotations

import pytest
import torch

from helpers.losses import assert_equal_with_gradients, ragged_inputs
from quarry.errors import UserError
from quarry.losses.kl_distillation import KLDistillation


@pytest.mark.parametrize("teacher_temperature", [1.0, 0.5])
def test_equals_plain_torch(teacher_temperature: float) -> None:
    inputs = ragged_inputs()
    assert inputs.scores is not None
    expected = torch.zeros((), dtype=torch.float64)
    for query, of_query in enumerate(inputs.groups.unique_consecutive()):
        rows = inputs.groups == of_query
        student = (inputs.passages[rows] @ inputs.queries[query] / 0.05).softmax(dim=0)
        teacher = (inputs.scores[rows].double() / teacher_temperature).softmax(dim=0)
        expected = expected + (teacher * (teacher / student).log()).sum() / len(inputs.queries)
    loss = KLDistillation(temperature=0.05, teacher_temperature=teacher_temperature)
    assert_equal_with_gradients(loss, inputs, expected)


def test_a_student_that_agrees_costs_nothing() -> None:
    inputs = ragged_inputs()
    similarities = (inputs.queries[inputs.groups] * inputs.passages).sum(dim=1).detach()
    agreeing = ragged_inputs(scores=similarities)
    output = KLDistillation(temperature=0.1, teacher_temperature=0.1)(agreeing)
    assert output.loss.item() == pytest.approx(0, abs=1e-12)
    assert output.metrics["agreement"] == 1


@pytest.mark.parametrize("key", ["temperature", "teacher_temperature"])
def test_an_impossible_temperature_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=rf"loss\.{key}=0.0: must be above 0"):
        KLDistillation(**{"temperature": 1.0, key: 0.0})
