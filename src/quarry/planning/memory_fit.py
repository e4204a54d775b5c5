"""Choose how a training step is run so that it fits the memory and takes the least time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from quarry.models.compilation import SELECTIVE
from quarry.planning.step_cost import step_seconds
from quarry.planning.step_memory import TrainingSetup, step_memory
from quarry.training.memory_choice import MemoryChoice

AUTO = "auto"
CHUNK_STEP = 256
"""Tokens: chunk sizes are a multiple of it."""

SMALLEST_CHUNK = 1024
"""Tokens: below it a chunk costs more in launching kernels than in work. The smallest chunk is
larger where the longest text is."""


def with_choice(setup: TrainingSetup, choice: MemoryChoice) -> TrainingSetup:
    """Return the setup with its step run as chosen."""
    return replace(
        setup,
        kept=replace(setup.kept, gradient_checkpointing=choice.gradient_checkpointing),
        grad_cache_chunk_tokens=choice.grad_cache_chunk_tokens,
    )


def choices(
    setup: TrainingSetup,
    *,
    gradient_checkpointing: bool | str,
    grad_cache_chunk_tokens: int | str | None,
    limit_bytes: int,
) -> list[MemoryChoice]:
    """Return what fits into a rank's memory, the fastest first.

    Args:
        setup: how the step is run apart from the two.
        gradient_checkpointing, grad_cache_chunk_tokens: what was asked for; "auto" leaves it open.
        limit_bytes: that a rank may take.
    """
    found = []
    for mode in _modes(setup, gradient_checkpointing):
        for chunk in _chunks(setup, mode, grad_cache_chunk_tokens, limit_bytes):
            choice = MemoryChoice(gradient_checkpointing=mode, grad_cache_chunk_tokens=chunk)
            if _total(setup, choice) <= limit_bytes:
                found.append(choice)
    return sorted(found, key=lambda choice: step_seconds(with_choice(setup, choice)))


def thriftiest(
    setup: TrainingSetup,
    *,
    gradient_checkpointing: bool | str,
    grad_cache_chunk_tokens: int | str | None,
) -> MemoryChoice:
    """Return what takes the least memory of what was asked for, whether it fits or not.

    Args:
        gradient_checkpointing, grad_cache_chunk_tokens: see `choices`.
    """
    # ZeRO holds all gradients where there are chunks: without them a step may take less
    is_open = grad_cache_chunk_tokens == AUTO
    chunks: tuple[Any, ...] = (
        (None, _smallest_chunk(setup)) if is_open else (grad_cache_chunk_tokens,)
    )
    found = [
        MemoryChoice(gradient_checkpointing=mode, grad_cache_chunk_tokens=chunk)
        for mode in _modes(setup, gradient_checkpointing)
        for chunk in chunks
    ]
    return min(found, key=lambda choice: _total(setup, choice))


def _modes(setup: TrainingSetup, asked: bool | str) -> Sequence[bool | str]:
    """Return the kinds of gradient checkpointing that are open; selective is the compiler's."""
    if asked != AUTO:
        return (asked,)
    return (False, SELECTIVE, True) if setup.kept.is_compiled else (False, True)


def _chunks(
    setup: TrainingSetup, mode: bool | str, asked: int | str | None, limit_bytes: int
) -> Iterator[int | None]:
    """Yield no chunks, and the largest that fit, or else the smallest that there are."""
    if asked != AUTO:
        yield asked  # type: ignore[misc]
        return
    yield None
    low = _smallest_chunk(setup) // CHUNK_STEP
    high = setup.contrast.largest_share(setup.num_processes) // CHUNK_STEP
    while low < high:
        middle = (low + high + 1) // 2
        choice = MemoryChoice(
            gradient_checkpointing=mode, grad_cache_chunk_tokens=middle * CHUNK_STEP
        )
        if _total(setup, choice) <= limit_bytes:
            low = middle
        else:
            high = middle - 1
    yield low * CHUNK_STEP


def _smallest_chunk(setup: TrainingSetup) -> int:
    needed = max(SMALLEST_CHUNK, setup.contrast.longest_text)
    return -(-needed // CHUNK_STEP) * CHUNK_STEP


def _total(setup: TrainingSetup, choice: MemoryChoice) -> int:
    return step_memory(with_choice(setup, choice)).total
