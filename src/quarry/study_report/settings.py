"""What was set for a run, of which part a result depends, and a name for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Stage = Literal["baseline", "given", "zero_shot", "supervised"]
"""What a retriever is in a study: no model, a ranking of others (nobody knows how it was made), a
model as it came, or one that was trained."""

WITHOUT_MODEL: tuple[Stage, ...] = ("baseline", "given")
"""Their rows stand in the tables of models, too."""

Settings = Mapping[str, str]
"""Dotted key of the resolved configuration -> its value as JSON."""

WHAT_MATTERS: Mapping[Stage, tuple[str, ...]] = {
    "baseline": ("retriever",),
    "given": (),
    "zero_shot": ("model", "prompt", "retriever", "trainer.precision"),
    "supervised": (
        "model",
        "prompt",
        "retriever",
        "data",
        "loss",
        "optimizer",
        "scheduler",
        "trainer",
        "callbacks",
    ),
}
"""The parts of a configuration that a result of each stage depends on."""

NO_EFFECT = (
    "callbacks.best_model",
    "callbacks.last_checkpoint",
    "callbacks.stop_on_divergence",
    "callbacks.throughput",
    "callbacks.top_checkpoints",
    "data.grad_cache_chunk_tokens",
    "data.num_workers",
    "model.attention",
    "model.compile",
    "model.gradient_checkpointing",
    "model.trust_remote_code",
    "retriever.index",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.num_nodes",
    "trainer.strategy",
)
"""Where and how something is computed, which changes results by rounding, and, where chunks differ,
by which entries LoRA's dropout drops: as another seed would, at most."""


def flattened(node: Any, path: str = "") -> dict[str, str]:
    """A nested configuration as dotted keys; lists are values."""
    if not isinstance(node, Mapping):
        return {path: json.dumps(node, sort_keys=True)}
    found: dict[str, str] = {}
    for key, value in node.items():
        found |= flattened(value, f"{path}.{key}" if path else str(key))
    return found


def is_in(key: str, parts: Sequence[str]) -> bool:
    """Whether a dotted key is one of `parts`, or below one."""
    return any(key == part or key.startswith(f"{part}.") for part in parts)


def relevant(settings: Settings, stage: Stage) -> dict[str, str]:
    """The settings that a result depends on; two results with the same ones differ in the seed."""
    # an adapter that was not trained changes nothing
    ignored = NO_EFFECT if stage == "supervised" else (*NO_EFFECT, "model.adapter")
    return {
        key: value
        for key, value in settings.items()
        if is_in(key, WHAT_MATTERS[stage])
        and not is_in(key, ignored)
        and not key.endswith("cache_dir")
    }


def placed(options: Mapping[str, str]) -> dict[str, str]:
    """Options by the part of the configuration that they fill: `model/pooling@model.pooling`."""
    return {
        (group.split("@")[1] if "@" in group else group.replace("/", ".")): option
        for group, option in options.items()
    }


def distinguishing(settings: Sequence[Settings], options: Sequence[Mapping[str, str]]) -> list[str]:
    """A few groups and keys that tell some configurations apart, all of them.

    A group whose option differs goes before keys (`prompt`); keys below it are used only where they
    differ among configurations with the same option. What is not needed is left out, keys first.

    Args:
        settings: what results depend on.
        options: which option each group has, by the part that it fills (`placed`).
    """
    groups, keys = differing(settings, options)
    names = [*groups, *keys]
    values = [
        {name: setting_value(each, chosen, name) for name in names}
        for each, chosen in zip(settings, options, strict=True)
    ]
    for name in reversed(names):
        left = [other for other in names if other != name]
        if len({tuple(each[other] for other in left) for each in values}) == len(values):
            names = left
    return names


def differing(
    settings: Sequence[Settings], options: Sequence[Mapping[str, str]]
) -> tuple[list[str], list[str]]:
    """Groups whose option differs with what they hold, and keys that differ besides."""
    keys = sorted({key for each in settings for key in each})
    varying = [key for key in keys if len({each.get(key) for each in settings}) > 1]
    all_groups = sorted({group for each in options for group in each}, key=len, reverse=True)
    groups: list[str] = []
    left: list[str] = []
    for key in varying:
        group = next((g for g in all_groups if is_in(key, (g,)) and _varies(options, g)), None)
        if group is None or _varies_within(settings, options, key, group):
            left.append(key)
        elif group not in groups:
            groups.append(group)
    return groups, left


def _varies(options: Sequence[Mapping[str, str]], group: str) -> bool:
    return len({each.get(group) for each in options}) > 1


def _varies_within(
    settings: Sequence[Settings], options: Sequence[Mapping[str, str]], key: str, group: str
) -> bool:
    found: dict[str | None, set[str | None]] = {}
    for each, chosen in zip(settings, options, strict=True):
        found.setdefault(chosen.get(group), set()).add(each.get(key))
    return any(len(values) > 1 for values in found.values())


def shortened(names: Sequence[str]) -> dict[str, str]:
    """The last part of each dotted name, or the whole of it where that would be another's."""
    last = [name.rpartition(".")[2] for name in names]
    return {
        name: name if last.count(end) > 1 else end for name, end in zip(names, last, strict=True)
    }


def setting_value(settings: Settings, options: Mapping[str, str], name: str) -> str:
    """Of a key, or of a group its option."""
    if name in settings:
        return settings[name].strip('"')
    return options.get(name, "unset")
