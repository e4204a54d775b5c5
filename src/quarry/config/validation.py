"""Validate a configuration before anything loads, and report all violations at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quarry.config.dry_run import dry_run_violations
from quarry.config.evaluation_rules import effect_violations, evaluation_violations
from quarry.config.lightning_rules import trainer_violations, training_only_violations
from quarry.config.logger_rules import logger_violations
from quarry.config.name_rules import name_violations
from quarry.config.signature_rules import (
    group_violations,
    joined,
    meant,
    shown,
    signature_violations,
)
from quarry.config.training_rules import training_violations
from quarry.config.value_ranges import range_violations
from quarry.config.world_size import device_violations, strategy_violations
from quarry.errors import ConfigurationError
from quarry.runtime.own_command import own_command
from quarry.runtime.renamed_keys import with_new_names

EVALUATION_COMPONENTS = (
    "model", "prompt", "trainer", "benchmark", "convention", "retriever", "baseline",
)  # fmt: skip
TRAINING_COMPONENTS = ("data.examples", "loss", "optimizer", "scheduler")

_RESOLVING = "ValueError raised while resolving interpolation: "
"""OmegaConf's prefix to the messages of our resolvers."""


def validate(config: DictConfig, *, primary: str, is_planned: bool = False) -> None:
    """Check a configuration; raise one UserError with all violations.

    Missing values end the check. Keys that do not fit what they configure are listed with numbers
    out of range, else these with all rules between keys, which rely on keys and types.

    Args:
        config: the composed configuration.
        primary: "train" or "eval".
        is_planned: the run is for a machine that need not be this one.
    """
    is_training = primary == "train"
    if is_training and OmegaConf.select(config, "data") is None:
        raise ConfigurationError(
            f"This task trains, and {own_command('eval')} has no data, loss or optimizer. Fix: "
            f"{own_command('train')}"
        )
    names = EVALUATION_COMPONENTS + (TRAINING_COMPONENTS if is_training else ())
    violations = [*unresolved_values(config)]
    if not violations:
        violations += [*unknown_keys(config), *component_violations(config, names)]
        violations += signature_violations(config)
        has_types = not violations
        violations += range_violations(config)
        if has_types:
            violations += _rules(config, primary=primary, is_planned=is_planned)
    if violations:
        raise ConfigurationError(
            "The configuration cannot work:\n"
            + "\n".join(f"- {with_new_names(line)}" for line in violations)
        )


def validate_task(config: DictConfig) -> None:
    """Check the keys of `task` alone, for tasks that read little else.

    Raises:
        ConfigurationError: names every wrong type, and every number out of its range.
    """
    task = config.get("task")
    if task is None:
        return
    of_task = OmegaConf.create({"task": task})
    lines = [*signature_violations(task, "task"), *range_violations(of_task)]
    if lines:
        raise ConfigurationError("\n".join(f"- {line}" for line in lines))


def unresolved_values(node: Any, path: str = "") -> Iterator[str]:
    """Yield a message for each missing value (???) and interpolation that cannot be resolved."""
    if not isinstance(node, DictConfig | ListConfig):
        return
    keys: Any = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        where = joined(path, key)
        if OmegaConf.is_missing(node, key):
            yield f"{where} has no value"
            continue
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0].removeprefix(_RESOLVING)
            yield f"{where}: {reason}"
            continue
        yield from unresolved_values(value, where)


def unknown_keys(node: DictConfig, path: str = "") -> Iterator[str]:
    """Yield keys that `+key=value` added and the schema does not have: nothing would read them."""
    schema = OmegaConf.get_type(node)
    if not is_dataclass(schema):
        return
    known = [field.name for field in fields(schema)]
    for key, value in node.items():
        if key not in known:
            where = joined(path, key)
            has = f"{path or 'the top level'} has {', '.join(known)}"
            hint = meant(where, [joined(path, name) for name in known])
            yield f"{where}: there is no such key; {has}{hint}"
        elif isinstance(value, DictConfig):
            yield from unknown_keys(value, str(key))


def component_violations(config: DictConfig, names: Sequence[str]) -> Iterator[str]:
    """Yield nodes that need a `_target_` and hold something else, such as null."""
    for name in names:
        node = OmegaConf.select(config, name)
        if not isinstance(node, DictConfig) or node.get("_target_") is None:
            yield f"{name}={shown(node)} names no class: choose an option of its group, see --help"
    for name in ("logger", "callbacks"):
        if name in config:
            yield from group_violations(OmegaConf.select(config, name), name)


def _rules(config: DictConfig, *, primary: str, is_planned: bool) -> Iterator[str]:
    """Yield the violations of rules between keys."""
    yield from device_violations(config, is_planned=is_planned)
    yield from trainer_violations(config, primary=primary)
    yield from logger_violations(config)
    yield from name_violations(config)
    yield from strategy_violations(config)
    if config.run is not None:
        fix = "task=resume" if primary == "train" else "model.path=DIR evaluates its model"
        yield f"run={config.run}: has no effect here. Fix: {fix}, or leave it out"
    if config.get("runs"):
        yield f"runs={list(config.runs)}: has no effect here. Fix: task=report, or leave it out"
    yield from evaluation_violations(config.evaluation)
    if primary == "train":
        yield from training_violations(config)
        yield from training_only_violations(config)
        yield from dry_run_violations(config)
    else:
        yield from effect_violations(config.evaluation)
