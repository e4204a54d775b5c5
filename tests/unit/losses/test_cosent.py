"""CoSENT against plain torch over all pairs of pairs."""

from __future__ import annotations

import pytest
import torch

from helpers.losses import assert_equal_with_gradients, ragged_inputs
from quarry.losses.cosent import CoSENT


@pytest.mark.parametrize("has_ties", [False, True])
def test_equals_plain_torch(has_ties: bool) -> None:
    inputs = ragged_inputs()
    if has_ties:
        assert inputs.scores is not None
        inputs = ragged_inputs(scores=inputs.scores.round())
    assert inputs.scores is not None
    assert (inputs.scores.unique().numel() < len(inputs.scores)) == has_ties
    similarities = (inputs.queries[inputs.groups] * inputs.passages).sum(dim=1)
    differences = (similarities[None, :] - similarities[:, None]) / 0.05
    counted = differences[inputs.scores[:, None] > inputs.scores[None, :]]
    expected = torch.log(1 + counted.exp().sum())
    assert_equal_with_gradients(CoSENT(temperature=0.05), inputs, expected)


def test_equal_grades_teach_nothing() -> None:
    inputs = ragged_inputs(scores=torch.ones(11))
    loss = CoSENT(temperature=0.05)(inputs).loss
    loss.backward()
    assert loss == 0
    assert inputs.queries.grad is not None
    assert not inputs.queries.grad.any()
