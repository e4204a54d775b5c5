"""Derive the swept keys, the jobs and their names from the overrides of a sweep."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from quarry.runtime.override_text import key_of
from quarry.runtime.secret_values import scrub_argument

MAX_NAME = 100
"""Characters of a job's name, which names its folder and its W&B run."""

OWN_KEYS = ("study.name", "study.job", "study.resume", "optimized_metric", "trusted_packages")
"""Keys that a sweep passes to its jobs or receives itself; not part of a job's identity."""


def with_first_choices(arguments: Sequence[str]) -> list[str]:
    """Return the `--multirun` command line with the first value of each sweep put before it.

    Hydra composes the sweep's configuration before the jobs, without swept keys: of
    `model=qwen-base,qwen-coder model.size=tiny` it composes the size alone, which the default
    model does not have. The jobs stay the same, since for one key Hydra's sweeper takes the last
    override. (Other sweepers do not.)
    """
    is_sweep = any(one in ("-m", "--multirun", "hydra.mode=MULTIRUN") for one in arguments)
    if not is_sweep or any(one.startswith("hydra/sweeper=") for one in arguments):
        return list(arguments)
    made: list[str] = []
    for one in arguments:
        if not one.startswith("-") and "=" in one:
            made += _first_choice(one)
        made.append(one)
    return made


def _first_choice(argument: str) -> list[str]:
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return []  # Hydra's own message is better
    if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
        return []
    values = list(override.sweep_string_iterator())
    return [f"{override.get_key_element()}={values[0]}"] if values else []


def has_all_jobs_known(sweeper: DictConfig) -> bool:
    """Return whether the jobs are known in advance, as they are with Hydra's own sweeper."""
    return str(sweeper._target_).endswith(f".{BasicSweeper.__name__}")


def fixed_keys(config: DictConfig) -> tuple[str, ...]:
    """Return the keys that have the same value in all jobs; a job's other overrides are swept.

    A plain value on the command line fixes a key that a study sweeps.
    """
    return tuple(key for key, swept in _keys(config).items() if not swept)


def swept_keys(config: DictConfig) -> tuple[str, ...]:
    """Return the keys that have several values, or whose values a sweeper chooses."""
    return tuple(key for key, swept in _keys(config).items() if swept)


def twice_given(config: DictConfig) -> list[str]:
    """Return the keys that the command line overrides more than once."""
    keys = [key_of(one) for one in _command(config)]
    return sorted({key for key in keys if keys.count(key) > 1})


def all_jobs(config: DictConfig) -> list[tuple[str, ...]]:
    """Return the overrides of every job, in order, of a sweep whose jobs are known."""
    overrides = OverridesParser.create().parse_overrides([*_params(config), *_command(config)])
    return [tuple(job) for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def identity(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return a job's overrides without `OWN_KEYS`."""
    return tuple(one for one in overrides if key_of(one) not in OWN_KEYS)


def as_typed(overrides: ListConfig | list[str]) -> tuple[str, ...]:
    """Return overrides of Hydra's configuration with their interpolations.

    Reading them one by one would put the values of environment variables into commands of jobs.
    """
    plain: Any = OmegaConf.to_container(overrides, resolve=False)
    return tuple(map(str, plain))


def job_name(overrides: Sequence[str], *, fixed: Sequence[str]) -> str:
    """Return the name of a job: `model-qwen-coder_loss.temperature-0.02`.

    It consists of the overrides of keys that are not fixed, in letters, digits, dots, hyphens and
    underscores. Where a value has other characters, or the name would be too long, it ends in a
    hash, so that different overrides have different names. Secrets are hidden.
    """
    named = [one for one in identity(overrides) if key_of(one) not in fixed]
    if not named:
        return "job"
    pairs = [scrub_argument(one.lstrip("+~")).partition("=") for one in named]
    readable = "_".join(f"{key.replace('/', '.')}-{value}" for key, _, value in pairs)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", readable)
    if name == readable and len(name) <= MAX_NAME:
        return name
    digest = hashlib.blake2b("\n".join(named).encode(), digest_size=4).hexdigest()
    return f"{name[: MAX_NAME - len(digest) - 1].strip('-')}-{digest}"


def _keys(config: DictConfig) -> dict[str, bool]:
    """Return every key that a sweep overrides -> whether it is swept."""
    overrides = OverridesParser.create().parse_overrides([*_params(config), *_command(config)])
    is_swept = {one.get_key_element(): one.is_sweep_override() for one in overrides}
    return {key.lstrip("+~"): swept for key, swept in is_swept.items()}


def _params(config: DictConfig) -> list[str]:
    params = OmegaConf.select(config, "hydra.sweeper.params")
    plain = {} if params is None else OmegaConf.to_container(params, resolve=True)
    assert isinstance(plain, dict)
    return [f"{key!s}={value}" for key, value in plain.items()]


def _command(config: DictConfig) -> list[str]:
    return list(as_typed(config.hydra.overrides.task))
