"""Secrets of a composed configuration, and what a stored one has in their place."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from quarry.errors import ConfigurationError
from quarry.runtime.secret_values import HIDDEN, OWN_VARIABLES, remember_secrets, variables_in

logger = logging.getLogger(__name__)

NOT_USED = ("tags[", "study.")
"""Keys that describe a run, and that nothing is done with."""


def hide_values_of(config: DictConfig) -> None:
    """Hide the secrets of a configuration in all that this process writes from now on."""
    remember_secrets(OmegaConf.to_container(config, resolve=False))


def check_stored_values(config: DictConfig, path: Path) -> None:
    """Refuse a stored configuration of which secrets are missing, and hide those that are there.

    A logger's own secret, such as an API key, is removed: the logger asks the environment for it.

    Args:
        path: the file that it was read from.

    Raises:
        ConfigurationError: a value was hidden when it was stored, or comes from an environment
            variable that is not set here.
    """
    violations: list[str] = []
    for key, value in _leaves(OmegaConf.to_container(config, resolve=False)):
        if value == HIDDEN and key.startswith("logger."):
            OmegaConf.update(config, key, None)
            logger.warning("%s is a secret, and not stored: the environment's is used", key)
        elif HIDDEN in value and not key.startswith(NOT_USED):
            violations.append(
                f"{key}={value}: a secret, which is not stored. Fix: write the value into {path}, "
                f"or better the name of an environment variable, {key}: ${{oc.env:NAME}}"
            )
        violations += [
            f"{key}={value}: the environment variable {name} is not set. Fix: export {name}=..., "
            "as when the run was started"
            for name in variables_in(value)
            if name not in os.environ and not name.startswith(OWN_VARIABLES) and "," not in value
        ]
    if violations:
        lines = "\n".join(f"- {line}" for line in violations)
        raise ConfigurationError(f"{path} does not hold what this run needs:\n{lines}")
    hide_values_of(config)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys and values of all texts in nested data."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _leaves(one, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _leaves(one, f"{key}[{number}]")
    elif isinstance(value, str):
        yield key, value
