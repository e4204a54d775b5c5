"""Matryoshka against the loss inside, on embeddings that are cut by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from helpers.losses import assert_equal_with_gradients, ragged_inputs
from quarry.errors import UserError
from quarry.losses.info_nce import InfoNCE
from quarry.losses.matryoshka import Matryoshka


@pytest.mark.parametrize("is_normalized", [True, False])
@pytest.mark.parametrize("dim_weights", [None, [1.0, 0.25, 3.0]])
def test_equals_plain_torch(dim_weights: list[float] | None, is_normalized: bool) -> None:
    inputs, dims = ragged_inputs(), [8, 4, 1]
    expected = torch.zeros((), dtype=torch.float64)
    for dim, weight in zip(dims, dim_weights or [1, 1, 1], strict=True):
        queries, passages = inputs.queries[:, :dim], inputs.passages[:, :dim]
        if is_normalized and dim < 8:  # of full width they are used as they are
            queries, passages = normalize(queries, dim=1), normalize(passages, dim=1)
        logits = queries @ passages.T / 0.05
        expected = expected + weight * cross_entropy(logits, inputs.positive_index)
    loss = Matryoshka(
        loss=InfoNCE(temperature=0.05), dims=dims, dim_weights=dim_weights, normalize=is_normalized
    )
    assert_equal_with_gradients(loss, inputs, expected)


def test_metrics_have_the_width() -> None:
    loss = Matryoshka(loss=InfoNCE(temperature=0.05), dims=[8, 2])
    assert loss.largest_dim == 8
    metrics = loss(ragged_inputs()).metrics
    assert {"dim_8/loss", "dim_2/loss", "dim_2/accuracy"} <= set(metrics)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"dims": []}, r"loss\.dims=\[\]"),
        ({"dims": [4, 4]}, r"loss\.dims=\[4, 4\]"),
        ({"dims": [0]}, r"loss\.dims=\[0\]"),
        ({"dims": [4, 2], "dim_weights": [1.0]}, r"loss\.dim_weights"),
        ({"dims": [4], "dim_weights": [-1.0]}, r"loss\.dim_weights"),
    ],
)
def test_impossible_widths_are_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=key):
        Matryoshka(loss=InfoNCE(temperature=0.05), **settings)
