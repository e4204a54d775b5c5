"""Options written where a path belongs: `model.path=qwen-coder` for `model=qwen-coder`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from quarry.config.options import options_of_groups

PATH_KEYS = {
    "task": ("run", "resume"),
    "model": ("model.path", "local"),
    "data": ("data.path", "file"),
    "benchmark": ("benchmark.path", "folder"),
}
"""Group -> the key of a path that belongs to it, and an option that reads that key."""


def name_violations(config: DictConfig) -> Iterator[str]:
    """Yield paths that are the name of an option, and no file or folder."""
    for group, (key, _) in PATH_KEYS.items():
        value = OmegaConf.select(config, key)
        is_option = isinstance(value, str) and value in options_of_groups()[group]
        if is_option and not Path(value).expanduser().exists():
            fix = f"{group}={value} run=DIR" if key == "run" else f"{group}={value}"
            yield f"{key}={value}: this is an option of {group}, no path. Fix: {fix}"
