"""Poolings against numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quarry.data.packing import pack
from quarry.data.tokenization import TokenizedText
from quarry.models.pooling.base import Pooling
from quarry.models.pooling.echo import Echo
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.mean import Mean
from quarry.models.pooling.weighted_mean import WeightedMean
from quarry.types import TokenBatch

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@pytest.fixture
def tokens() -> TokenBatch:
    """Texts of three, one and two tokens."""
    return pack([[1, 2, 3], [4], [5, 6]])


def states(dtype: torch.dtype) -> torch.Tensor:
    rows = [[1, 10], [2, 20], [6, 30], [7, -7], [0, 1], [1, 2]]
    return torch.tensor(rows, dtype=dtype)


@DTYPES
def test_last_token(tokens: TokenBatch, dtype: torch.dtype) -> None:
    pooled = LastToken()(states(dtype), tokens)
    assert pooled.dtype == dtype
    assert pooled.tolist() == [[6, 30], [7, -7], [1, 2]]


@DTYPES
def test_mean(tokens: TokenBatch, dtype: torch.dtype) -> None:
    pooled = Mean()(states(dtype), tokens)
    assert pooled.dtype == dtype
    assert pooled.tolist() == [[3, 20], [7, -7], [0.5, 1.5]]


@pytest.mark.parametrize("pooling", [LastToken(), Mean(), WeightedMean()])
def test_a_text_of_one_token_is_its_state(pooling: Pooling) -> None:
    assert torch.equal(
        pooling(states(torch.float32)[:2], pack([[1], [2]])), states(torch.float32)[:2]
    )


@pytest.mark.parametrize("pooling", [LastToken(), Mean(), WeightedMean()])
def test_gradients(pooling: Pooling, tokens: TokenBatch) -> None:
    inputs = states(torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pooling(x, tokens), (inputs,))


def test_gradient_of_the_mean_by_hand(tokens: TokenBatch) -> None:
    inputs = states(torch.float64).requires_grad_()
    (Mean()(inputs, tokens)[:, 0] * torch.tensor([3.0, 5.0, 4.0])).sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.tolist() == [[1, 0], [1, 0], [1, 0], [5, 0], [2, 0], [2, 0]]


@DTYPES
def test_weighted_mean(tokens: TokenBatch, dtype: torch.dtype) -> None:
    pooled = WeightedMean()(states(dtype), tokens)
    assert pooled.dtype == dtype
    expected = torch.tensor(
        [[(1 + 4 + 18) / 6, (10 + 40 + 90) / 6], [7, -7], [2 / 3, (1 + 4) / 3]], dtype=dtype
    )
    torch.testing.assert_close(pooled, expected)


def echoed() -> TokenBatch:
    """Three texts whose last copies begin at their third, first and second token."""
    texts = [([1, 2, 3], 2), ([4], 0), ([5, 6], 1)]
    return pack([TokenizedText(ids=np.array(ids), pool_start=start) for ids, start in texts])


@DTYPES
def test_echo_is_the_mean_of_the_last_copy(dtype: torch.dtype) -> None:
    pooled = Echo()(states(dtype), echoed())
    assert pooled.tolist() == [[6, 30], [7, -7], [1, 2]]


def test_gradients_of_echo() -> None:
    inputs = states(torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Echo()(x, echoed()), (inputs,))


def test_mean_of_a_long_text_keeps_fp32_precision() -> None:
    torch.manual_seed(0)
    long = torch.randn(50_000, 4) + 100
    pooled = Mean()(long, pack([range(50_000)]))
    # a running fp32 sum of 50,000 numbers near 100 would be off by 1e-2 or so
    torch.testing.assert_close(pooled[0], long.double().mean(dim=0).float(), rtol=0, atol=1e-3)
