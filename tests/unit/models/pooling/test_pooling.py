"""Poolings against numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quarry.data.packing import pack
from quarry.data.tokenization import TokenizedText
from quarry.models.pooling.base import Pooling, num_pooled
from quarry.models.pooling.cls import Cls
from quarry.models.pooling.echo import Echo
from quarry.models.pooling.last_token import LastToken
from quarry.models.pooling.max import Max
from quarry.models.pooling.mean import Mean
from quarry.models.pooling.mean_sqrt_len import MeanSqrtLen
from quarry.models.pooling.weighted_mean import WeightedMean
from quarry.types import TokenBatch

POOLINGS = (Cls, Max, Mean, MeanSqrtLen, WeightedMean)
"""Those that can leave the prompt out."""

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


ALL = pytest.mark.parametrize(
    "pooling",
    [LastToken(), Echo(), *(p() for p in POOLINGS), *(p(include_prompt=False) for p in POOLINGS)],
    ids=lambda p: f"{type(p).__name__} {getattr(p, 'include_prompt', '')}",
)


@ALL
def test_a_text_of_one_token_is_its_state(pooling: Pooling) -> None:
    assert torch.equal(
        pooling(states(torch.float32)[:2], pack([[1], [2]])), states(torch.float32)[:2]
    )


@ALL
def test_gradients(pooling: Pooling, tokens: TokenBatch) -> None:
    inputs = states(torch.float64)
    inputs[0, 1] = 30.5  # no two values of a text alike: the gradient of their maximum is none
    inputs.requires_grad_()
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


@DTYPES
def test_cls(tokens: TokenBatch, dtype: torch.dtype) -> None:
    pooled = Cls()(states(dtype), tokens)
    assert pooled.dtype == dtype
    assert pooled.tolist() == [[1, 10], [7, -7], [0, 1]]


@DTYPES
def test_max(tokens: TokenBatch, dtype: torch.dtype) -> None:
    pooled = Max()(states(dtype), tokens)
    assert pooled.dtype == dtype
    assert pooled.tolist() == [[6, 30], [7, -7], [1, 2]]


@DTYPES
def test_the_largest_of_negative_values_is_negative(dtype: torch.dtype) -> None:
    below = torch.tensor([[-3, -4], [-1, -5]], dtype=dtype)
    assert Max()(below, pack([[1, 2]])).tolist() == [[-1, -4]]


@DTYPES
def test_mean_sqrt_len(tokens: TokenBatch, dtype: torch.dtype) -> None:
    pooled = MeanSqrtLen()(states(dtype), tokens)
    assert pooled.dtype == dtype
    expected = [[9 / 3**0.5, 60 / 3**0.5], [7, -7], [1 / 2**0.5, 3 / 2**0.5]]
    torch.testing.assert_close(pooled, torch.tensor(expected, dtype=dtype))


def prompted() -> TokenBatch:
    """Texts of three, one and two tokens, of which one, none and one are the prompt's."""
    texts = [([1, 2, 3], 1), ([4], 0), ([5, 6], 1)]
    return pack([TokenizedText(ids=np.array(ids), pool_start=start) for ids, start in texts])


WITHOUT_PROMPT = {
    Cls: [[2, 20], [7, -7], [1, 2]],
    Max: [[6, 30], [7, -7], [1, 2]],
    Mean: [[4, 25], [7, -7], [1, 2]],
    MeanSqrtLen: [[8 / 2**0.5, 50 / 2**0.5], [7, -7], [1, 2]],
    # weights 2 and 3 of the first text's last tokens, which are its second and third
    WeightedMean: [[(2 * 2 + 3 * 6) / 5, (2 * 20 + 3 * 30) / 5], [7, -7], [1, 2]],
}


@DTYPES
@pytest.mark.parametrize("pooling", POOLINGS)
def test_without_the_prompt(pooling: type, dtype: torch.dtype) -> None:
    pooled = pooling(include_prompt=False)(states(dtype), prompted())
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled, torch.tensor(WITHOUT_PROMPT[pooling], dtype=dtype))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_prompt_counts_where_nothing_else_is_said(pooling: type, tokens: TokenBatch) -> None:
    inputs = states(torch.float32)
    assert torch.equal(pooling()(inputs, prompted()), pooling()(inputs, tokens))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_prompt_that_is_left_out_has_no_gradient(pooling: type) -> None:
    inputs = states(torch.float64).requires_grad_()
    pooling(include_prompt=False)(inputs, prompted()).sum().backward()
    assert inputs.grad is not None
    assert inputs.grad[[0, 4]].tolist() == [[0, 0], [0, 0]]
    assert inputs.grad[[3, 5]].abs().min() > 0


def test_tokens_that_are_pooled() -> None:
    assert num_pooled(prompted(), include_prompt=True).tolist() == [3, 1, 2]
    assert num_pooled(prompted(), include_prompt=False).tolist() == [2, 1, 1]
