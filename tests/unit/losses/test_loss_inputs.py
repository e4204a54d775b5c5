"""What a loss receives: groups, weights, and embeddings that are mapped."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers.losses import assert_equal_with_gradients, ragged_inputs
from quarry.losses.info_nce import InfoNCE


def test_groups_of_different_sizes() -> None:
    inputs = ragged_inputs(groups=(3, 1, 2))
    assert inputs.groups.tolist() == [0, 0, 0, 1, 2, 2]
    rows, is_there = inputs.group_rows
    assert is_there.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    assert rows[is_there].tolist() == list(range(6))
    similarities, _ = inputs.group_similarities()
    assert similarities[2, 1].item() == pytest.approx(
        (inputs.queries[2] @ inputs.passages[5]).item(), rel=1e-12
    )
    assert not similarities[~is_there].any()


def test_weights_make_a_weighted_mean() -> None:
    weights = torch.tensor([1.0, 2.0, 0.5, 4.0, 1.0])
    inputs = ragged_inputs(weights=weights)
    logits = inputs.queries @ inputs.passages.T / 0.05
    losses = cross_entropy(logits, inputs.positive_index, reduction="none")
    expected = (losses * weights).sum() / 8.5
    assert_equal_with_gradients(InfoNCE(temperature=0.05), inputs, expected)


def test_mapped_embeddings_leave_the_rest() -> None:
    inputs = ragged_inputs()
    mapped = inputs.mapped(lambda embeddings: embeddings[:, :2])
    assert torch.equal(mapped.all_passages, inputs.passages[:, :2])
    assert torch.equal(mapped.queries, inputs.queries[:, :2])
    assert mapped.all_hashes is inputs.all_hashes
    assert mapped.scores is inputs.scores
