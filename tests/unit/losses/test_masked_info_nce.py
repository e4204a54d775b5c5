"""InfoNCE without what is too similar, against plain torch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers.losses import assert_equal_with_gradients, ragged_inputs
from quarry.errors import UserError
from quarry.losses import masked_info_nce
from quarry.losses.loss_inputs import LossInputs
from quarry.losses.masked_info_nce import MaskedInfoNCE


def plain(inputs: LossInputs, margin: float, kind: str) -> tuple[torch.Tensor, int]:
    similarities = inputs.queries @ inputs.passages.T
    removed = torch.zeros_like(similarities, dtype=torch.bool)
    for query, own in enumerate(inputs.positive_index.tolist()):
        positive = similarities[query, own].item()
        width = margin if kind == "absolute" else margin * abs(positive)
        for row in range(similarities.shape[1]):
            removed[query, row] = row != own and similarities[query, row].item() > positive - width
    logits = similarities.masked_fill(removed, -math.inf) / 0.05
    return cross_entropy(logits, inputs.positive_index), int(removed.sum())


@pytest.mark.parametrize("max_similarities", [1, 25, 1000])
@pytest.mark.parametrize(
    ("margin", "kind"), [(-0.1, "absolute"), (0.05, "absolute"), (0.3, "relative")]
)
def test_equals_plain_torch(
    margin: float, kind: Any, max_similarities: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_info_nce, "MAX_SIMILARITIES", max_similarities)
    inputs = ragged_inputs()
    expected, num_removed = plain(inputs, margin, kind)
    assert 0 < num_removed < 40
    loss = MaskedInfoNCE(temperature=0.05, margin=margin, margin_kind=kind)
    assert_equal_with_gradients(loss, inputs, expected)


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"margin": math.nan}, "loss.margin=nan"), ({"margin_kind": "x"}, "loss.margin_kind=x")],
)
def test_impossible_margins_are_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=key):
        MaskedInfoNCE(**({"temperature": 0.05, "margin": 0.1} | settings))
