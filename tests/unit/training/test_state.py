"""Whatever is done inside, training finds itself as it was."""

from __future__ import annotations

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from quarry.training.state import preserved_training_state


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), torch.rand(()).item()


def module() -> nn.Module:
    """In training mode, but for one part that is not."""
    made = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    made.train()
    made[1][1].eval()
    return made


def modes(of: nn.Module) -> list[bool]:
    return [part.training for part in of.modules()]


@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_random_numbers_come_back_also_after_an_error(fails: bool) -> None:
    made = module()
    before = modes(made)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = drawn()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    try:
        with preserved_training_state(made):
            made.eval()
            assert drawn() == expected
            drawn()
            torch.manual_seed(77)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert modes(made) == before
    assert drawn() == expected


@pytest.mark.parametrize("is_kept", [True, False])
def test_copies_of_weights_that_autocast_made_inside_do_not_serve_outside(is_kept: bool) -> None:
    linear, ones = nn.Linear(4, 4), torch.ones(1, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with preserved_training_state(linear) if is_kept else nullcontext():
            before = linear(ones)
        linear.weight.data.add_(1)
        after = linear(ones)
    assert torch.allclose(after, before + 4, atol=0.1) is is_kept
