"""Estimate how fast a device trains: as stated, or as measured with a model of that size."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from quarry.planning.cards import Card, rate_on
from quarry.planning.memory_fit import with_choice
from quarry.planning.step_cost import step_seconds
from quarry.planning.step_memory import TrainingSetup
from quarry.runtime.shipped_files import shipped
from quarry.training.memory_choice import MemoryChoice

MEASURED = shipped("docs/performance.json")
"""Measurements of `make bench`, the source of docs/performance.md."""

WHOLE = {
    None: (("train_7b_16x16", "ours"), ("train_7b", "ours"), ("train_05b", "ours")),
    "fp8": (("train_7b_fp8", "ours_fp8"),),
}
"""`model.linear_precision` -> measurements of LoRA training without gradient checkpointing, best
match first."""

CHECKPOINTED = {None: (("train_7b_same_memory", "ours"),), "fp8": ()}
"""The same with gradient checkpointing."""

LORA_FLOP = 4
"""FLOP of a token and a weight in linear layers: forward, and the gradient of the input."""

SAME = 0.005
NEAR = 0.02
"""Sizes are the same if their linear layers differ by less than this share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """Hold a rate in tokens a second, padding not counted.

    Attributes:
        tokens_per_s: of one device.
        source: where it comes from and what was assumed, for people.
        is_limit: a run is slower than that.
    """

    tokens_per_s: float
    source: str
    is_limit: bool = False


def planned_rate(
    setup: TrainingSetup, *, stated: float | None, linear_precision: str | None, card: Card | None
) -> Rate | None:
    """Return the rate of one device; None: nobody has stated or measured it.

    Only LoRA in half precision on GPUs, compiled, was measured. Recomputation lowers the rate in
    proportion to its work; several devices count as if they did not wait for one another.

    Args:
        stated: tokens a second of one device.
        linear_precision: of the model.
        card: that it runs on; None: one that is not in the table, or a CPU.
    """
    if stated is not None:
        return Rate(tokens_per_s=stated, source="as stated")
    is_measured = card is not None and not setup.kept.trains_backbone and setup.kept.itemsize == 2
    if not is_measured or setup.stage == 3 or not MEASURED.exists():
        return None
    content = json.loads(MEASURED.read_text(encoding="utf-8"))
    has_checkpointing = setup.kept.recomputes_layers
    forms = [(name, False) for name in WHOLE[linear_precision]]
    if has_checkpointing:
        forms = [*((name, True) for name in CHECKPOINTED[linear_precision]), *forms]
    for (measurement, name), repeats_layers in forms:
        part = content["parts"].get(measurement, {}).get(name, {})
        if "tokens_per_s" not in part:
            continue
        if abs(part["flop_per_token"] / LORA_FLOP / setup.num_linear - 1) > NEAR:
            continue
        device = content["runs"][part["run"]]["device"]
        found = rate_on(
            card,
            tokens_per_s=part["tokens_per_s"],
            measured_on=device,
            linear_precision=linear_precision,
        )
        if found is None:
            return None
        measured = with_choice(
            replace(setup, kept=replace(setup.kept, is_compiled=True, has_dropout=False)),
            MemoryChoice(gradient_checkpointing=repeats_layers, grad_cache_chunk_tokens=None),
        )
        return _scaled(setup, measured, found[0], f"docs/performance.md, {found[1]}")
    return None


def _scaled(setup: TrainingSetup, measured: TrainingSetup, rate: float, source: str) -> Rate:
    """Scale the measurement of a model to a run of it with more or less recomputation."""
    ratio = step_seconds(setup) / step_seconds(measured)
    if abs(ratio - 1) > SAME:
        source += f", divided by {ratio:.2f} for how the planned step is run"
    return Rate(tokens_per_s=rate / ratio, source=source)
