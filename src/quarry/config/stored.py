"""Read the configuration that a run directory holds, whichever version wrote it."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from quarry.errors import UserError
from quarry.runtime.renamed_keys import with_renamed_keys


def read_stored_config(path: Path) -> DictConfig:
    """Return the configuration in `path`, unresolved, with the key names of today.

    Raises:
        UserError: the file holds no mapping.
    """
    stored = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(stored, dict):
        raise UserError(f"{path} holds no configuration: restore it.")
    config = OmegaConf.create(with_renamed_keys({str(key): stored[key] for key in stored}))
    assert isinstance(config, DictConfig)
    return config
