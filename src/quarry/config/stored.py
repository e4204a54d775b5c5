"""Read the configuration that a run directory holds, whichever version wrote it.

This is the only door for what is built from a stored configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quarry.config.schema import EvaluationConfig
from quarry.config.stored_targets import check_stored
from quarry.errors import UserError
from quarry.runtime.renamed_keys import with_renamed_keys

MAX_BYTES = 10 * 2**20
"""Largest file that is read: configurations have some kilobytes."""


def read_stored_config(path: Path, *, trusted: Sequence[str]) -> DictConfig:
    """Return the configuration in `path` to build from, checked by `check_stored`.

    It is unresolved and has the key names of today. What it trusted itself is replaced.

    Args:
        trusted: the packages that the present call trusts.

    Raises:
        UserError: the file holds no mapping, or it chooses code that is not trusted.
    """
    config = read_unchecked_config(path)
    check_stored(config, source=path, trusted=trusted)
    config.trusted_packages = list(trusted)
    return config


def read_unchecked_config(path: Path) -> DictConfig:
    """Return the configuration in `path` as data, to be shown, changed or written: never built.

    Keys of `evaluation` that the version which wrote it did not have get their defaults.

    Raises:
        UserError: the file holds no mapping.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES:,} bytes. Fix: restore the file")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise UserError(f"{path}: has YAML aliases (*name). Fix: write their values there")
        stored = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
        if not isinstance(stored, dict):
            raise UserError(f"{path} holds no configuration: restore it.")
        config = OmegaConf.create(with_renamed_keys({str(key): stored[key] for key in stored}))
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: no configuration ({reason}). Fix: restore the file") from error
    assert isinstance(config, DictConfig)
    if "evaluation" in config:
        for key, default in vars(EvaluationConfig()).items():
            if key not in config.evaluation and default != MISSING:
                config.evaluation[key] = default
    return config
