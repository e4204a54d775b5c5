"""InfoNCE against five lines of numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from helpers.losses import assert_equal_with_gradients, output_of, ragged_inputs
from quarry.errors import UserError
from quarry.losses.info_nce import InfoNCE

DTYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)]
)


def by_numpy(
    queries: np.ndarray, passages: np.ndarray, positive_index: np.ndarray, temperature: float
) -> float:
    logits = queries.astype(np.float64) @ passages.astype(np.float64).T / temperature
    logits -= logits.max(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -float(log_probabilities[np.arange(len(queries)), positive_index].mean())


def embeddings(num_texts: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(num_texts, 8, dtype=dtype, generator=generator), dim=1)


@DTYPES
@pytest.mark.parametrize("num_hard_negatives", [0, 1, 3])
@pytest.mark.parametrize("temperature", [0.01, 0.05, 1.0])
def test_equals_numpy(
    dtype: torch.dtype, tolerance: float, num_hard_negatives: int, temperature: float
) -> None:
    group = 1 + num_hard_negatives
    queries, passages = embeddings(5, dtype, 0), embeddings(5 * group, dtype, 1)
    positive_index = torch.arange(5) * group
    output = output_of(InfoNCE(temperature=temperature), queries, passages, positive_index)
    expected = by_numpy(queries.numpy(), passages.numpy(), positive_index.numpy(), temperature)
    assert output.loss.dtype == dtype
    assert output.loss.shape == ()
    assert output.loss.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_by_hand() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    passages = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    output = output_of(InfoNCE(temperature=0.5), queries, passages, torch.tensor([0, 1]))
    # logits: (2, 1.2) with the first right, and (0, 1.6) with the second right
    expected = (math.log1p(math.exp(-0.8)) + math.log1p(math.exp(-1.6))) / 2
    assert output.loss.item() == pytest.approx(expected, rel=1e-12)


def test_equal_similarities_cost_the_logarithm_of_the_set() -> None:
    passages = torch.ones(12, 4, dtype=torch.float64)
    loss = output_of(
        InfoNCE(temperature=0.01), passages[:3], passages, torch.tensor([0, 4, 8])
    ).loss
    assert loss.item() == pytest.approx(math.log(12), rel=1e-12)


def test_gradient_is_softmax_minus_target() -> None:
    queries = embeddings(3, torch.float64, 0).requires_grad_()
    passages = embeddings(6, torch.float64, 1)
    positive_index = torch.tensor([0, 2, 4])
    output_of(InfoNCE(temperature=0.1), queries, passages, positive_index).loss.backward()
    probabilities = (queries.detach() @ passages.T / 0.1).softmax(dim=1)
    probabilities[torch.arange(3), positive_index] -= 1
    torch.testing.assert_close(queries.grad, probabilities @ passages / 0.1 / 3)


def test_metrics_by_hand_and_detached() -> None:
    queries = torch.eye(3, requires_grad=True)
    passages = torch.tensor([[0.6, 0.8, 0], [1, 0, 0], [0, 0.6, 0.8], [0, 0, 1.0]])
    metrics = output_of(
        InfoNCE(temperature=0.1), queries, passages, torch.tensor([1, 2, 3])
    ).metrics
    # the first and the third find theirs; the second, 0.6 similar, is closer to the first's (0.8)
    assert set(metrics) == {"accuracy", "positive_similarity"}
    assert metrics["accuracy"].item() == pytest.approx(2 / 3)
    assert metrics["positive_similarity"].item() == pytest.approx((1 + 0.6 + 1) / 3)
    assert not any(value.requires_grad for value in metrics.values())


def test_a_small_temperature_does_not_overflow() -> None:
    queries = torch.eye(4)
    loss = output_of(InfoNCE(temperature=1e-4), queries, -queries, torch.arange(4)).loss
    assert loss.item() == pytest.approx(10_000 + math.log(3), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan])
def test_an_impossible_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(UserError, match=r"loss\.temperature=.*must be above 0"):
        InfoNCE(temperature=temperature)


@pytest.mark.parametrize("has_masks", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("document_to_document", [False, True])
@pytest.mark.parametrize("query_to_query", [False, True])
def test_further_terms_equal_plain_torch(
    query_to_query: bool, document_to_document: bool, symmetric: bool, has_masks: bool
) -> None:
    inputs, expected = ragged_inputs(), torch.zeros((), dtype=torch.float64)
    assert inputs.hashes is not None
    of_queries, of_passages = inputs.hashes.queries, inputs.hashes.passages
    positives = inputs.passages[inputs.positive_index]
    of_positives = of_passages[inputs.positive_index]
    for i, own in enumerate(inputs.positive_index.tolist()):
        same = torch.arange(len(of_queries)) == i
        if has_masks:
            same |= (of_queries == of_queries[i]) | (of_positives == of_positives[i])
        others = torch.arange(len(of_passages)) != own
        if has_masks:
            others &= of_passages != of_passages[own]
            others &= inputs.hashes.answered != of_queries[i]
        compared = [inputs.passages[others] @ inputs.queries[i]]
        compared += [inputs.queries[~same] @ inputs.queries[i]] if query_to_query else []
        compared += [positives[~same] @ positives[i]] if document_to_document else []
        positive = (inputs.queries[i] @ positives[i])[None]
        loss = torch.cat([positive, *compared]).div(0.05).logsumexp(dim=0) - positive[0] / 0.05
        if symmetric:
            queries = torch.cat([positive, inputs.queries[~same] @ positives[i]])
            loss = (loss + queries.div(0.05).logsumexp(dim=0) - positive[0] / 0.05) / 2
        expected = expected + loss / len(of_queries)
    found = InfoNCE(
        temperature=0.05, query_to_query=query_to_query, document_to_document=document_to_document,
        symmetric=symmetric, masks_same_query=has_masks, masks_same_passage=has_masks,
    )  # fmt: skip
    assert_equal_with_gradients(found, inputs, expected)
