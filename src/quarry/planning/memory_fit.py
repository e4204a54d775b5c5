"""Choose how a training step is run so that it fits the memory and takes the least time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from quarry.models.gradient_checkpointing import SELECTIVE
from quarry.planning.step_cost import step_seconds
from quarry.planning.step_memory import TrainingSetup, step_memory
from quarry.training.memory_choice import MemoryChoice

AUTO = "auto"
CHUNK_STEP = 256
"""Chunk sizes are a multiple of so many tokens."""

SMALLEST_CHUNK = 1024
"""Tokens below which a chunk costs more in launching kernels than in work. The smallest chunk is
larger where the longest text is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedChoice:
    """State what a configuration asks for; "auto" leaves an option open."""

    gradient_checkpointing: bool | str
    grad_cache_chunk_tokens: int | str | None

    @property
    def is_open(self) -> bool:
        return AUTO in (self.gradient_checkpointing, self.grad_cache_chunk_tokens)

    @property
    def plain(self) -> MemoryChoice:
        """Return it with neither recomputation nor chunks in place of `auto`."""
        checkpointing, chunk = self.gradient_checkpointing, self.grad_cache_chunk_tokens
        return MemoryChoice(
            gradient_checkpointing=False if checkpointing == AUTO else checkpointing,
            grad_cache_chunk_tokens=chunk if isinstance(chunk, int) else None,
        )


OPEN = AskedChoice(gradient_checkpointing=AUTO, grad_cache_chunk_tokens=AUTO)


def with_choice(setup: TrainingSetup, choice: MemoryChoice) -> TrainingSetup:
    """Return the setup with its step run as chosen."""
    return replace(
        setup,
        kept=replace(setup.kept, gradient_checkpointing=choice.gradient_checkpointing),
        grad_cache_chunk_tokens=choice.grad_cache_chunk_tokens,
    )


def fitted_setup(
    setup: TrainingSetup, asked: AskedChoice, *, limit_bytes: int | None
) -> tuple[TrainingSetup, MemoryChoice | None]:
    """Choose what is left to `auto`: the fastest choice that fits, else the one of least memory.

    Args:
        setup: with anything in place of what is left open.
        limit_bytes: that a rank may take on its GPU; None: it runs on a CPU, where `auto` is plain.

    Returns:
        The setup, and what was chosen; None: nothing was left open.
    """
    if not asked.is_open:
        return setup, None
    if limit_bytes is None:
        choice = asked.plain
    else:
        fitting = choices(setup, asked, limit_bytes=limit_bytes)
        choice = fitting[0] if fitting else thriftiest(setup, asked)
    return with_choice(setup, choice), choice


def fitting_choices(
    setup: TrainingSetup, asked: AskedChoice, *, limit_bytes: int | None
) -> tuple[MemoryChoice, ...]:
    """Return what `auto` chooses from, the fastest first; nothing where nothing is left open."""
    if not asked.is_open or limit_bytes is None:
        return ()
    return tuple(choices(setup, asked, limit_bytes=limit_bytes))


def choices(setup: TrainingSetup, asked: AskedChoice, *, limit_bytes: int) -> list[MemoryChoice]:
    """Return what fits into a rank's memory, the fastest first.

    Args:
        setup: how the step is run apart from the two.
        limit_bytes: that a rank may take.
    """
    found = []
    for mode in _modes(setup, asked.gradient_checkpointing):
        for chunk in _chunks(setup, mode, asked.grad_cache_chunk_tokens, limit_bytes):
            choice = MemoryChoice(gradient_checkpointing=mode, grad_cache_chunk_tokens=chunk)
            if _total(setup, choice) <= limit_bytes:
                found.append(choice)
    return sorted(found, key=lambda choice: step_seconds(with_choice(setup, choice)))


def thriftiest(setup: TrainingSetup, asked: AskedChoice) -> MemoryChoice:
    """Return what takes the least memory of what was asked for, whether it fits or not."""
    # ZeRO holds all gradients where there are chunks: without them a step may take less
    chunk = asked.grad_cache_chunk_tokens
    chunks: tuple[Any, ...] = (None, _smallest_chunk(setup)) if chunk == AUTO else (chunk,)
    found = [
        MemoryChoice(gradient_checkpointing=mode, grad_cache_chunk_tokens=chunk)
        for mode in _modes(setup, asked.gradient_checkpointing)
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
    high = setup.contrast.largest_share(setup.world_size) // CHUNK_STEP
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
