"""A small trained run directory of commit 5dd0e46, and the tasks that read it, in this process."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from helpers.commands import ROOT
from quarry.config.schema import register_schemas

ASSET = ROOT / "tests" / "assets" / "run_of_5dd0e46"
PLACEHOLDER = "@FOLDER@"

Task = Callable[..., Any]


@contextmanager
def tasks(cache: Path) -> Iterator[Task]:
    """Yield what does in this process what `python train.py OVERRIDES...` and eval.py do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUARRY_CACHE", str(cache))
        register_schemas()
        with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):

            @lru_cache
            def composed(primary: str, *overrides: str) -> DictConfig:
                return compose(primary, overrides=[f"paths.cache_dir={cache}", *overrides])

            def call(primary: str, *overrides: str) -> Any:
                config = copy.deepcopy(composed(primary, *overrides))
                return instantiate(config.task)(config)

            yield call


def copied(folder: Path) -> Path:
    """The run directory in a copy of the asset, whose texts name the folder where it lies now."""
    shutil.copytree(ASSET, folder)
    for path in folder.rglob("*"):
        if path.suffix in {".json", ".yaml", ".log", ".md"}:
            path.write_text(path.read_text().replace(PLACEHOLDER, str(folder)))
    return folder / "run"
