"""Hardness-weighted InfoNCE against plain torch."""

from __future__ import annotations

import pytest
import torch

from helpers.losses import assert_equal_with_gradients, ragged_inputs
from quarry.errors import UserError
from quarry.losses import hardness_weighted_info_nce
from quarry.losses.hardness_weighted_info_nce import HardnessWeightedInfoNCE
from quarry.losses.info_nce import InfoNCE


@pytest.mark.parametrize("max_similarities", [1, 25, 1000])
def test_equals_plain_torch(max_similarities: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardness_weighted_info_nce, "MAX_SIMILARITIES", max_similarities)
    inputs = ragged_inputs()
    similarities = inputs.queries @ inputs.passages.T
    weights = (9 * similarities.detach()).exp()
    queries = torch.arange(len(inputs.queries))
    weights[queries, inputs.positive_index] = 1
    likely = (similarities / 0.05).exp() * weights
    expected = -(likely[queries, inputs.positive_index] / likely.sum(dim=1)).log().mean()
    assert_equal_with_gradients(
        HardnessWeightedInfoNCE(temperature=0.05, hardness=9.0), inputs, expected
    )


def test_without_hardness_it_is_info_nce() -> None:
    inputs = ragged_inputs()
    loss = HardnessWeightedInfoNCE(temperature=0.05, hardness=0.0)
    assert torch.equal(loss(inputs).loss, InfoNCE(temperature=0.05)(inputs).loss)


def test_a_negative_hardness_is_refused() -> None:
    with pytest.raises(UserError, match=r"loss\.hardness=-1\.0"):
        HardnessWeightedInfoNCE(temperature=0.05, hardness=-1.0)
