"""Select the settings that a run's results depend on, and short names that tell runs apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Stage = Literal["baseline", "given", "zero_shot", "supervised"]
"""Kind of retriever in a study: a baseline without a model, a given ranking of unknown origin, an
untrained model, or a trained one."""

WITHOUT_MODEL: tuple[Stage, ...] = ("baseline", "given")
"""Stages without a model, whose rows are also in the tables of models."""

MAX_VALUE = 32
"""Characters of a value in a label."""

EXPERIMENT = "experiment"
"""Group of options that choose options of several others."""

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
"""Parts of the configuration that a result of each stage depends on."""

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
    "trainer.fast_dev_run",
    "trainer.log_every_n_steps",
    "trainer.num_nodes",
    "trainer.profiler",
    "trainer.strategy",
)
"""Keys for where and how to compute. They change results by rounding and, if GradCache chunks
differ, by which entries LoRA's dropout drops: by no more than another seed would."""


def flattened(node: Any, path: str = "") -> dict[str, str]:
    """Return a nested configuration as dotted keys -> JSON; lists are values."""
    if not isinstance(node, Mapping):
        return {path: json.dumps(node, sort_keys=True)}
    found: dict[str, str] = {}
    for key, value in node.items():
        found |= flattened(value, f"{path}.{key}" if path else str(key))
    return found


def is_in(key: str, parts: Sequence[str]) -> bool:
    """Return whether a dotted key is one of `parts`, or below one."""
    return any(key == part or key.startswith(f"{part}.") for part in parts)


def relevant(settings: Settings, stage: Stage) -> dict[str, str]:
    """Return the settings that a result depends on, without the seed."""
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
    """Return part of the configuration -> option; `model/pooling@model.pooling` is model.pooling.

    Args:
        options: configuration group, in Hydra's form -> option.
    """
    return {
        (group.split("@")[1] if "@" in group else group.replace("/", ".")): option
        for group, option in options.items()
    }


def distinguishing(settings: Sequence[Settings], options: Sequence[Mapping[str, str]]) -> list[str]:
    """Return few configuration groups and keys that tell all given configurations apart.

    A group whose option differs (`prompt`) is preferred to keys. Keys below it are used only if
    they differ among configurations with the same option. Redundant names are dropped, keys first.
    The experiment is named where that takes fewer names and each configuration has one.

    Args:
        settings: the settings that results depend on.
        options: part of the configuration -> option (see `placed`).
    """
    groups, keys = differing(settings, options)
    names = [*groups, *keys]
    found = _needed(settings, options, names)
    if len(found) > 1 and all(each.get(EXPERIMENT, "none") != "none" for each in options):
        with_experiment = _needed(settings, options, [EXPERIMENT, *names])
        found = min(found, with_experiment, key=len)
    return found


def _needed(
    settings: Sequence[Settings], options: Sequence[Mapping[str, str]], names: Sequence[str]
) -> list[str]:
    """Return the names without those that are redundant, from the last one on."""
    names = list(names)
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
    """Return the groups whose options differ, and keys whose differences they do not explain."""
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
    """Return dotted name -> its last part, or the full name if several share that part."""
    last = [name.rpartition(".")[2] for name in names]
    return {
        name: name if last.count(end) > 1 else end for name, end in zip(names, last, strict=True)
    }


def short_values(values: Sequence[str]) -> dict[str, str]:
    """Return value -> a short text for labels, different for each: of a path its last parts."""
    each = list(dict.fromkeys(values))
    tails: list[str] = each
    for depth in range(1, 1 + max((value.count("/") for value in each), default=0)):
        tails = [_tail(value, depth) for value in each]
        if len(set(tails)) == len(each):
            break
    texts = [_cut(text) for text in tails]
    return {
        value: text if texts.count(text) == 1 else f"{text} #{place}"
        for place, (value, text) in enumerate(zip(each, texts, strict=True), start=1)
    }


def _tail(value: str, depth: int) -> str:
    is_path = "/" in value and not any(character.isspace() for character in value)
    return "/".join(value.rstrip("/").split("/")[-depth:]) if is_path else value


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 3]}..."


def setting_value(settings: Settings, options: Mapping[str, str], name: str) -> str:
    """Return the value of a key, or the option of a group."""
    if name in settings:
        return settings[name].strip('"')
    return options.get(name, "unset")
