"""Read the configuration that a run directory holds, whichever version wrote it."""

from __future__ import annotations

from pathlib import Path

from omegaconf import MISSING, DictConfig, OmegaConf

from quarry.config.schema import EvaluationConfig
from quarry.errors import UserError
from quarry.runtime.renamed_keys import with_renamed_keys


def read_stored_config(path: Path) -> DictConfig:
    """Return the configuration in `path`, unresolved, with the key names of today.

    Keys of `evaluation` that the version which wrote it did not have get their defaults.

    Raises:
        UserError: the file holds no mapping.
    """
    stored = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(stored, dict):
        raise UserError(f"{path} holds no configuration: restore it.")
    config = OmegaConf.create(with_renamed_keys({str(key): stored[key] for key in stored}))
    assert isinstance(config, DictConfig)
    if "evaluation" in config:
        for key, default in vars(EvaluationConfig()).items():
            if key not in config.evaluation and default != MISSING:
                config.evaluation[key] = default
    return config
