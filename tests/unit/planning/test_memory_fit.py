"""The choice of how a step is run: it fits, nothing larger of its kind would, and it is fast."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.plans import GIB, LORA, setup
from quarry.planning.memory_fit import (
    CHUNK_STEP,
    OPEN,
    SMALLEST_CHUNK,
    AskedChoice,
    choices,
    thriftiest,
    with_choice,
)
from quarry.planning.step_cost import step_seconds
from quarry.planning.step_memory import ContrastiveBatches, TrainingSetup, step_memory
from quarry.planning.zero_buffers import ZeroBuffers
from quarry.training.memory_choice import MemoryChoice

MODES = (False, "selective", True)


def total(of: TrainingSetup, mode: bool | str, chunk: int | None) -> int:
    choice = MemoryChoice(gradient_checkpointing=mode, grad_cache_chunk_tokens=chunk)
    return step_memory(with_choice(of, choice)).total


def contrast(**more: float) -> ContrastiveBatches:
    return replace(setup().contrast, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("gib", [15, 18, 24, 33, 48, 79, 101, 140])
@pytest.mark.parametrize(
    "of",
    [setup(), setup(kept=replace(LORA, is_compiled=False)), setup(contrast=contrast(deviation=99))],
    ids=["compiled", "plain", "lengths that differ"],
)
def test_all_fit_no_larger_chunk_would_and_the_fastest_is_first(
    gib: float, of: TrainingSetup
) -> None:
    limit = int(gib * GIB)
    found = choices(of, OPEN, limit_bytes=limit)
    seconds = [step_seconds(with_choice(of, each)) for each in found]
    assert seconds == sorted(seconds)
    share = of.contrast.largest_share(1)
    for choice in found:
        mode, chunk = choice.gradient_checkpointing, choice.grad_cache_chunk_tokens
        assert total(of, mode, chunk) <= limit
        if chunk is not None:
            assert chunk % CHUNK_STEP == 0
            assert chunk >= SMALLEST_CHUNK
            next_one = chunk + CHUNK_STEP
            assert next_one > share or total(of, mode, next_one) > limit
    modes = MODES if of.kept.is_compiled else (False, True)
    assert {each.gradient_checkpointing for each in found} == {
        mode for mode in modes if total(of, mode, SMALLEST_CHUNK) <= limit
    }, "each kind is among them, if its smallest chunk fits"


def test_more_memory_is_never_slower() -> None:
    fastest = [
        step_seconds(with_choice(setup(), choices(setup(), OPEN, limit_bytes=gib * GIB)[0]))
        for gib in range(16, 120, 4)
    ]
    assert fastest == sorted(fastest, reverse=True)
    assert fastest[0] > fastest[-1]


def test_with_room_for_all_nothing_is_computed_twice() -> None:
    (first, *_) = choices(setup(), OPEN, limit_bytes=200 * GIB)
    assert first == MemoryChoice(gradient_checkpointing=False, grad_cache_chunk_tokens=None)
    assert first.overrides == (
        "model.gradient_checkpointing=false",
        "data.grad_cache_chunk_tokens=null",
    )


@pytest.mark.parametrize("longest", [8192, 8000, 1025])
def test_a_chunk_holds_the_longest_text(longest: int) -> None:
    of = setup(contrast=contrast(longest_text=longest))
    asked = AskedChoice(gradient_checkpointing=True, grad_cache_chunk_tokens="auto")
    least = thriftiest(of, asked)
    assert least.grad_cache_chunk_tokens is not None
    assert longest <= least.grad_cache_chunk_tokens < longest + CHUNK_STEP
    needed = step_memory(with_choice(of, least)).total
    assert choices(of, asked, limit_bytes=needed) == [least]
    assert choices(of, asked, limit_bytes=needed - 1) == []


def test_contrastive_batches_below_the_smallest_chunk_are_not_cut() -> None:
    few = setup(contrast=contrast(num_queries=2, tokens_per_query=100))
    (first, *_) = choices(few, OPEN, limit_bytes=200 * GIB)
    assert first.grad_cache_chunk_tokens is None
    least = thriftiest(few, OPEN)
    assert total(few, least.gradient_checkpointing, None) == total(
        few, least.gradient_checkpointing, least.grad_cache_chunk_tokens
    )


@pytest.mark.parametrize("mode", MODES)
def test_stated_checkpointing_leaves_the_chunks(mode: bool | str) -> None:
    asked = AskedChoice(gradient_checkpointing=mode, grad_cache_chunk_tokens="auto")
    found = choices(setup(), asked, limit_bytes=20 * GIB)
    assert {each.gradient_checkpointing for each in found} == {mode}
    assert all(each.grad_cache_chunk_tokens is not None for each in found)


@pytest.mark.parametrize("chunk", [None, 1000, 4096])
def test_stated_chunks_leave_the_checkpointing(chunk: int | None) -> None:
    asked = AskedChoice(gradient_checkpointing="auto", grad_cache_chunk_tokens=chunk)
    found = choices(setup(), asked, limit_bytes=24 * GIB)
    assert {each.grad_cache_chunk_tokens for each in found} == {chunk}
    assert {each.gradient_checkpointing for each in found} == {
        mode for mode in MODES if total(setup(), mode, chunk) <= 24 * GIB
    }


def test_what_is_stated_and_does_not_fit_is_no_choice() -> None:
    stated = AskedChoice(gradient_checkpointing=False, grad_cache_chunk_tokens=None)
    assert choices(setup(), stated, limit_bytes=24 * GIB) == []
    assert thriftiest(setup(), stated) == stated.plain


def test_the_thriftiest_takes_the_least() -> None:
    least = thriftiest(setup(), OPEN)
    assert least == MemoryChoice(gradient_checkpointing=True, grad_cache_chunk_tokens=1024)
    every = [total(setup(), mode, chunk) for mode in MODES for chunk in (None, 1024, 8192)]
    assert total(setup(), True, 1024) == min(every)


def test_under_zero_chunks_hold_all_gradients_so_that_the_thriftiest_may_have_none() -> None:
    of = setup(
        num_frozen=0,
        num_trained=7_070_619_136,
        frozen_itemsize=4,
        kept=replace(LORA, trains_backbone=True),
        world_size=8,
        zero=ZeroBuffers(stage=2, reduce_bucket_size=200_000_000),
    )
    assert thriftiest(of, OPEN).grad_cache_chunk_tokens is None
    assert total(of, True, None) < total(of, True, 1024)
    needed = total(of, True, None)
    assert choices(of, OPEN, limit_bytes=needed) == [thriftiest(of, OPEN)]
