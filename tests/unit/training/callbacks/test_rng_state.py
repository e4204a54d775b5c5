"""A resumed run draws the random numbers that an uninterrupted one would have drawn."""

from __future__ import annotations

import io
from typing import Any

import torch

from helpers.training import fit
from quarry.training.callbacks.rng_state import RNGState


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint is written and read: tensors and plain values, nothing that runs."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def drawn_in_training(callback: RNGState, *, num_steps: int) -> list[float]:
    """The random number of each step, as dropout would draw it."""
    drawn: list[float] = []

    def loss(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        drawn.append(torch.rand(()).item())
        return weight * x

    fit(loss, [0] * num_steps, callback)
    return drawn


def test_the_numbers_go_on_where_they_were() -> None:
    torch.manual_seed(5)
    callback = RNGState()
    drawn_in_training(callback, num_steps=3)
    state = through_a_file(callback.state_dict())
    expected = [torch.rand(()).item() for _ in range(2)]

    torch.manual_seed(99)  # another process
    resumed = RNGState()
    resumed.load_state_dict(state)
    assert drawn_in_training(resumed, num_steps=2) == expected


def test_what_happens_between_loading_and_the_first_step_does_not_matter() -> None:
    torch.manual_seed(5)
    state = RNGState().state_dict()
    expected = torch.rand(()).item()
    resumed = RNGState()
    resumed.load_state_dict(state)
    torch.rand(17)  # a model is built
    assert drawn_in_training(resumed, num_steps=1) == [expected]


def test_a_state_is_used_once_and_a_fresh_run_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(()).item()
    torch.manual_seed(5)
    assert drawn_in_training(RNGState(), num_steps=1) == [expected]

    resumed = RNGState()
    resumed.load_state_dict(RNGState().state_dict())
    first = drawn_in_training(resumed, num_steps=1)
    assert drawn_in_training(resumed, num_steps=1) != first
