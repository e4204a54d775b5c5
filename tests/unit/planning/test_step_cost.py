"""What ways of running a step cost, by hand and in order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.plans import LORA, setup
from quarry.planning.step_cost import (
    DROPOUT,
    EAGER,
    FLOP_PER_S,
    FORWARD,
    FORWARD_AND_BACKWARD,
    LAYERS_AGAIN,
    LAYERS_AGAIN_EAGER,
    PASS_OVERHEAD_S,
    SELECTIVE_AGAIN,
    WEIGHT_GRADIENTS,
    step_seconds,
    units_per_token,
)

TOKENS = 16 * 1280
NUM_LINEAR, NUM_LAYERS = 6_525_288_448, 28


@pytest.mark.parametrize(
    ("changes", "units"),
    [
        ({}, FORWARD_AND_BACKWARD),
        ({"trains_backbone": True}, FORWARD_AND_BACKWARD + WEIGHT_GRADIENTS),
        ({"gradient_checkpointing": "selective"}, FORWARD_AND_BACKWARD + SELECTIVE_AGAIN),
        ({"gradient_checkpointing": True}, FORWARD_AND_BACKWARD + LAYERS_AGAIN),
        ({"is_compiled": False}, FORWARD_AND_BACKWARD * EAGER),
        ({"has_dropout": True}, FORWARD_AND_BACKWARD * DROPOUT),
    ],
)
def test_work_of_a_token_by_hand(changes: dict[str, bool | str], units: float) -> None:
    kept = replace(LORA, **changes)  # type: ignore[arg-type]
    assert units_per_token(setup(kept=kept)) == pytest.approx(units)


@pytest.mark.parametrize("checkpointing", [True, "selective"])
def test_plain_layers_are_computed_again_in_full(checkpointing: bool | str) -> None:
    kept = replace(LORA, is_compiled=False, gradient_checkpointing=checkpointing)
    expected = (FORWARD_AND_BACKWARD + LAYERS_AGAIN_EAGER) * EAGER
    assert units_per_token(setup(kept=kept)) == pytest.approx(expected)


def test_one_pass_by_hand() -> None:
    work = TOKENS * FORWARD_AND_BACKWARD * NUM_LINEAR / FLOP_PER_S
    assert step_seconds(setup()) == pytest.approx(work + PASS_OVERHEAD_S * NUM_LAYERS)


def test_chunks_by_hand() -> None:
    """Five passes with a graph and four without; the texts of one chunk go through once."""
    chunk = TOKENS // 5
    units = TOKENS * FORWARD_AND_BACKWARD + (TOKENS - chunk) * FORWARD
    expected = units * NUM_LINEAR / FLOP_PER_S + PASS_OVERHEAD_S * NUM_LAYERS * (5 + 4 / 2)
    assert step_seconds(setup(grad_cache_chunk_tokens=chunk)) == pytest.approx(expected)


def test_a_chunk_that_holds_all_costs_nothing() -> None:
    for chunk in (TOKENS, 10 * TOKENS):
        assert step_seconds(setup(grad_cache_chunk_tokens=chunk)) == step_seconds(setup())


def test_larger_chunks_are_faster() -> None:
    seconds = [
        step_seconds(setup(grad_cache_chunk_tokens=chunk)) for chunk in range(1024, TOKENS, 256)
    ]
    assert seconds == sorted(seconds, reverse=True)


def test_ranks_share_the_work() -> None:
    overhead = PASS_OVERHEAD_S * NUM_LAYERS
    alone, of_four = step_seconds(setup()), step_seconds(setup(world_size=4))
    assert of_four - overhead == pytest.approx((alone - overhead) / 4)
