"""One number that is not finite, in a weight or in an optimizer's state, is found."""

from __future__ import annotations

import math

import pytest
import torch

from quarry.training.finite import are_finite


def trained(dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).to(dtype)
    module[1].bias.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.1)
    module(torch.ones(2, 3, dtype=dtype)).sum().backward()
    optimizer.step()
    return module, optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_weight_or_a_state_that_is_not_finite_is_found(dtype: torch.dtype, bad: float) -> None:
    for is_weight in (True, False):
        module, optimizer = trained(dtype)
        assert are_finite(module, [optimizer])
        weight = next(module.parameters())
        spoilt = weight if is_weight else optimizer.state[weight]["exp_avg_sq"]
        with torch.no_grad():
            spoilt[2, 1] = bad
        assert not are_finite(module, [optimizer])


def test_the_largest_numbers_are_finite_and_frozen_weights_are_not_looked_at() -> None:
    module, optimizer = trained()
    with torch.no_grad():
        next(module.parameters()).fill_(torch.finfo(torch.float32).max)
        list(module.parameters())[-1].fill_(math.nan)
    assert are_finite(module, [optimizer])
    assert are_finite(module, [])
