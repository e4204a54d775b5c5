"""Search for changes with which a plan that does not fit would fit, the cheapest first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from quarry.models.gradient_checkpointing import SELECTIVE
from quarry.planning.machine import CLOSE, Machine
from quarry.planning.memory_fit import OPEN, choices, with_choice
from quarry.planning.step_memory import StepMemory, TrainingSetup, step_memory
from quarry.planning.zero_buffers import ZeroBuffers
from quarry.runtime.shipped_files import conf_dir
from quarry.training.memory_choice import MemoryChoice

DEVICE_COUNTS = (2, 4, 8, 16, 32, 64)
MAX_PER_NODE = 8

NUM_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Alternative:
    """Describe a run that differs from the plan.

    Attributes:
        overrides: that make it.
        meaning: what they do and cost, for people.
    """

    setup: TrainingSetup
    overrides: tuple[str, ...] = ()
    meaning: str = ""

    @property
    def memory(self) -> StepMemory:
        return step_memory(self.setup)

    def and_then(self, *overrides: str, meaning: str, **changes: Any) -> Alternative:
        """Return it with more overrides, and with what they change in the setup."""
        return Alternative(
            setup=replace(self.setup, **changes),
            overrides=(*self.overrides, *overrides),
            meaning="; ".join(part for part in (self.meaning, meaning) if part),
        )


def alternatives(
    setup: TrainingSetup, machine: Machine, *, zero_overrides: tuple[str, ...]
) -> list[Alternative]:
    """Return the first few that fit, in order of their cost.

    Recomputation comes first, then shards, then more devices.

    Args:
        zero_overrides: that a ZeRO strategy needs besides.
    """
    found: list[Alternative] = []
    for plain in _numbers(Alternative(setup=setup), machine):
        fitting = _fitting([plain], machine)
        # what fits without shards needs none
        found += fitting or _fitting(_sharded(plain, zero_overrides), machine)
    return found[:NUM_SHOWN]


def _numbers(plan: Alternative, machine: Machine) -> Iterator[Alternative]:
    """Yield the plan as it is, and on more devices."""
    yield plan
    if not machine.is_gpu:  # more ranks would share the same memory
        return
    for number in DEVICE_COUNTS:
        if plan.setup.world_size < number <= plan.setup.contrast.num_queries:
            yield plan.and_then(*_devices(number), meaning=f"{number} devices", world_size=number)


def _fitting(bases: Iterable[Alternative], machine: Machine) -> list[Alternative]:
    """Return the fastest form of each base that fits, if there is one."""
    forms = [_fitted(base, limit_bytes=int(CLOSE * machine.num_bytes)) for base in bases]
    return [form for form in forms if form is not None]


def _fitted(base: Alternative, *, limit_bytes: int) -> Alternative | None:
    """Return the base, or its fastest form with checkpointing, chunks or both that fits."""
    if base.memory.total <= limit_bytes:
        return base
    found = choices(base.setup, OPEN, limit_bytes=limit_bytes)
    if not found:
        return None
    before = (base.setup.kept.gradient_checkpointing, base.setup.grad_cache_chunk_tokens)
    after = (found[0].gradient_checkpointing, found[0].grad_cache_chunk_tokens)
    changed = [
        (override, meaning)
        for override, meaning, old, new in zip(
            found[0].overrides, _meanings(found[0]), before, after, strict=True
        )
        if old != new
    ]
    return replace(
        base.and_then(
            *(override for override, _ in changed),
            meaning="; ".join(meaning for _, meaning in changed if meaning),
        ),
        setup=with_choice(base.setup, found[0]),
    )


def _meanings(choice: MemoryChoice) -> tuple[str, str]:
    checkpointing = {
        False: "nothing is computed twice in a layer",
        SELECTIVE: "what is element-wise is computed twice",
        True: "layers are computed twice",
    }[choice.gradient_checkpointing]
    chunk = choice.grad_cache_chunk_tokens
    return checkpointing, "no chunks" if chunk is None else "GradCache, texts go through twice"


def _sharded(base: Alternative, zero_overrides: tuple[str, ...]) -> Iterator[Alternative]:
    """Yield it under ZeRO 2 and 3, in bfloat16 where all weights are trained."""
    setup = base.setup
    is_shared = setup.world_size > 1 and not setup.offloads_parameters
    if not is_shared or setup.stage == 3:
        return
    changes: dict[str, Any] = {}
    if setup.kept.trains_backbone:
        changes = {"frozen_itemsize": 2, "trained_itemsize": 2}
        kept = replace(setup.kept, itemsize=2, state_itemsize=2)
        if setup.stage < 2:
            yield base.and_then(
                "strategy=zero2",
                *zero_overrides,
                meaning="gradients and optimizer in shards",
                zero=option_buffers("zero2"),
                kept=kept,
                **changes,
            )
        setup = replace(setup, kept=kept)
    kept = replace(setup.kept, is_compiled=False)
    yield base.and_then(
        "strategy=zero3",
        *zero_overrides,
        meaning="weights in shards, fetched layer by layer",
        zero=option_buffers("zero3"),
        kept=kept,
        **changes,
    )


@cache
def option_buffers(name: str) -> ZeroBuffers:
    """Return the settings that conf/strategy has for an option, such as zero2."""
    file = conf_dir() / "strategy" / f"{name}.yaml"
    return ZeroBuffers.of(OmegaConf.load(file).strategy)


def _devices(number: int) -> tuple[str, ...]:
    if number <= MAX_PER_NODE:
        return (f"trainer.devices={number}",)
    return f"trainer.devices={MAX_PER_NODE}", f"trainer.num_nodes={number // MAX_PER_NODE}"
