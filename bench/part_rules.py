"""Decide which parts of a measurement run, with which settings, and which results are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from measurements import NUM_CPU_RANKS, Measurement, Part

if TYPE_CHECKING:
    from runner import Runner

CHECKPOINTING = "model.gradient_checkpointing"
CHUNKS = "data.grad_cache_chunk_tokens"

NOT_BEGUN = "not begun"
"""Beginning of the reason where no time was left."""

Content = dict[str, Any]


class NotMeasuredError(Exception):
    """There is no figure; the message says why.

    Attributes:
        known: results that the process had handed over before it failed.
    """

    def __init__(self, reason: str, known: Content | None = None) -> None:
        super().__init__(reason)
        self.known = known or {}


def obstacle(part: Part, measurement: Measurement, machine: Content, runner: Runner) -> str | None:
    """Return why a part cannot run on this machine, None if it can."""
    has_gpu, memory = machine["has_gpu"], machine["memory_gib"]
    needs = {*part.needs, *(["data"] if measurement.needs_data else [])}
    for name, what in (("data", "a BEIR folder"), ("trained", "a folder with trained weights")):
        if name in needs and getattr(runner, name) is None:
            return f"needs {what}: --{name} DIR"
    if measurement.on_cpu:
        return None
    too_few = _too_few_gpus(part, machine)
    if too_few is not None:
        return too_few
    if (runner.scale.needs_gpu or part.needs_gpu) and not has_gpu:
        return "needs a CUDA device"
    if has_gpu and memory < part.at_least_gib:
        return f"needs {part.at_least_gib:.0f} GiB, this card has {memory:.0f}"
    return "is for smaller cards" if has_gpu and memory >= part.below_gib else None


def _too_few_gpus(part: Part, machine: Content) -> str | None:
    places = machine["num_gpus"] if machine["has_gpu"] else NUM_CPU_RANKS
    if not part.gpus or max(part.gpus) < places:
        return None
    has = f"this machine has {places}" if machine["has_gpu"] else f"CPUs run {places} ranks here"
    return f"needs {max(part.gpus) + 1} GPUs, {has}"


def out_of_time(part: Part, left_s: float) -> str | None:
    """Return why a part is not started with `left_s` seconds left, None if it is."""
    if left_s <= 0:
        return f"{NOT_BEGUN}: the budget of time was used"
    if left_s < part.estimate_s:
        return f"{NOT_BEGUN}: it takes about {part.estimate_s:.0f} s, and {left_s:.0f} s are left"
    return None


def side_by_side(parts: Sequence[Part]) -> list[list[Part]]:
    """Return the parts in groups that run at the same time."""
    groups: list[list[Part]] = []
    for part in parts:
        if part.is_beside and groups:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def stated(part: Part, known: Content) -> list[str]:
    """Return the overrides that state another part's chosen settings, [] without `settings`.

    Raises:
        NotMeasuredError: that part has no result.
    """
    if part.settings is None:
        return []
    chosen = known.get(part.settings.part, {}).get("chosen")
    if not chosen or "not_run" in known[part.settings.part]:
        raise NotMeasuredError(f"needs what `auto` chose in {part.settings.part}: not measured")
    chunks = chosen[CHUNKS]
    checkpointing = str(chosen[CHECKPOINTING]).lower()
    return [
        f"{CHECKPOINTING}={checkpointing}",
        f"{CHUNKS}={'null' if chunks is None else chunks}",
        *(part.settings.in_one_pass if chunks is None else ()),
    ]


def replaces(outcome: Content, known: Content | None) -> bool:
    """Return whether an outcome replaces an earlier call's: a figure is never lost to a reason."""
    if known is None or "not_run" not in outcome:
        return True
    return "not_run" in known and not outcome["not_run"].startswith(NOT_BEGUN)
