"""MarginMSE against plain torch, a pair at a time."""

from __future__ import annotations

import torch

from helpers.losses import assert_equal_with_gradients, ragged_inputs
from quarry.losses.margin_mse import MarginMSE


def test_equals_plain_torch() -> None:
    inputs = ragged_inputs(groups=(3, 2, 2, 5))
    assert inputs.scores is not None
    scores = inputs.scores.double()
    expected = torch.zeros((), dtype=torch.float64)
    for query, positive in enumerate(inputs.positive_index.tolist()):
        others = [row for row in range(len(scores)) if inputs.groups[row] == query][1:]
        for row in others:
            margin = inputs.queries[query] @ (inputs.passages[positive] - inputs.passages[row])
            error = (margin / 0.1 - (scores[positive] - scores[row])) ** 2
            expected = expected + error / len(others) / len(inputs.queries)
    assert_equal_with_gradients(MarginMSE(temperature=0.1), inputs, expected)
