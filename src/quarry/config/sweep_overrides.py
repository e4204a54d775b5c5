"""What Hydra will make of a sweep, before it does: its keys, its jobs, and a name for each job."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

MAX_NAME = 100
"""Characters of a job's name, which is a folder's, and a run's in W&B."""

OWN_KEYS = ("study.name", "study.job", "study.resume", "optimized_metric")
"""What a sweep tells its jobs, or is told itself; a job's identity is without."""


def with_first_choices(arguments: Sequence[str]) -> list[str]:
    """A command line of `--multirun` that says first with which value the whole is composed.

    Hydra composes it before the jobs, without what is swept: of `model=qwen-base,qwen-coder
    model.size=tiny` the size alone, which the default model does not have. Jobs are the same:
    for one key Hydra's sweeper takes what comes last. (Other sweepers do not.)
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
        return []  # Hydra says it better
    if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
        return []
    values = list(override.sweep_string_iterator())
    return [f"{override.get_key_element()}={values[0]}"] if values else []


def has_all_jobs_known(sweeper: DictConfig) -> bool:
    """Whether the sweeper is Hydra's own, which runs all combinations; others choose as they go."""
    return str(sweeper._target_).endswith(f".{BasicSweeper.__name__}")


def fixed_keys(config: DictConfig) -> tuple[str, ...]:
    """The keys that have the same value in all jobs; whatever else a job overrides is swept.

    A plain value on the command line fixes a key that a study sweeps.
    """
    return tuple(key for key, swept in _keys(config).items() if not swept)


def swept_keys(config: DictConfig) -> tuple[str, ...]:
    """The keys that have several values, or that a sweeper chooses values of."""
    return tuple(key for key, swept in _keys(config).items() if swept)


def twice_given(config: DictConfig) -> list[str]:
    """Keys that the command line names more than once."""
    keys = [key_of(one) for one in _command(config)]
    return sorted({key for key in keys if keys.count(key) > 1})


def all_jobs(config: DictConfig) -> list[tuple[str, ...]]:
    """The overrides of every job, in order, of a sweep whose jobs are known."""
    overrides = OverridesParser.create().parse_overrides([*_params(config), *_command(config)])
    return [tuple(job) for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]


def identity(overrides: Sequence[str]) -> tuple[str, ...]:
    """A job's overrides but those that say which job it is."""
    return tuple(one for one in overrides if key_of(one) not in OWN_KEYS)


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def job_name(overrides: Sequence[str], *, fixed: Sequence[str]) -> str:
    """A name for a job by its overrides of keys that are not fixed:
    `model-qwen-coder_loss.temperature-0.02`.

    Made of letters, digits, dot, hyphen and underscore. Where a value has others, or the name
    would be too long, it ends in a hash, so that different overrides have different names.
    """
    named = [one for one in identity(overrides) if key_of(one) not in fixed]
    if not named:
        return "job"
    pairs = [one.lstrip("+~").partition("=") for one in named]
    readable = "_".join(f"{key.replace('/', '.')}-{value}" for key, _, value in pairs)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", readable)
    if name == readable and len(name) <= MAX_NAME:
        return name
    digest = hashlib.blake2b("\n".join(named).encode(), digest_size=4).hexdigest()
    return f"{name[: MAX_NAME - len(digest) - 1].strip('-')}-{digest}"


def _keys(config: DictConfig) -> dict[str, bool]:
    """Every key that a sweep overrides -> whether it is swept."""
    overrides = OverridesParser.create().parse_overrides([*_params(config), *_command(config)])
    is_swept = {one.get_key_element(): one.is_sweep_override() for one in overrides}
    return {key.lstrip("+~"): swept for key, swept in is_swept.items()}


def _params(config: DictConfig) -> list[str]:
    params = OmegaConf.select(config, "hydra.sweeper.params")
    plain = {} if params is None else OmegaConf.to_container(params, resolve=True)
    assert isinstance(plain, dict)
    return [f"{key!s}={value}" for key, value in plain.items()]


def _command(config: DictConfig) -> list[str]:
    return [str(override) for override in config.hydra.overrides.task]
