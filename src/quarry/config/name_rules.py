"""Options written where a path belongs: `model.path=qwen-coder` for `model=qwen-coder`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from quarry.config.options import options_of_groups

PATHS = {
    "run": ("task", "task={option} run=DIR"),
    "model.path": ("model", "model={option}"),
    "data.path": ("data", "data={option}"),
    "benchmark.path": ("benchmark", "benchmark={option}"),
}
"""Key of a path -> the group whose options are not paths, and what was probably meant."""


def name_violations(config: DictConfig) -> Iterator[str]:
    """Paths that are the name of an option, and no file or folder."""
    for key, (group, meant) in PATHS.items():
        value = OmegaConf.select(config, key)
        is_option = isinstance(value, str) and value in options_of_groups()[group]
        if is_option and not Path(value).expanduser().exists():
            fix = meant.format(option=value)
            yield f"{key}={value}: this is an option of {group}, no path. Fix: {fix}"
