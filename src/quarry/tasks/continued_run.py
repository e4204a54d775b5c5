"""Begin a run directory, or continue in one that the same command has left unfinished."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf

from quarry.runtime.ownership import begun_run, owned
from quarry.runtime.run_directory import RunDirectory
from quarry.runtime.secret_values import remember_secrets, scrub

logger = logging.getLogger(__name__)


@contextmanager
def begun_or_continued_run(config: DictConfig, *, result: str) -> Iterator[RunDirectory]:
    """Own a new run directory, or one with the same configuration and no result.

    What was computed before a kill must be elsewhere, such as in the cache: nothing but files
    that are written again is kept here.

    Args:
        config: `paths.run_dir` is the directory.
        result: name of the file that a finished run has.

    Raises:
        UserError: another process owns the directory, or it has another or a finished run.
    """
    run = RunDirectory.shared(config.paths.run_dir)
    if not run.config.exists():
        with begun_run(run.path) as begun:
            yield begun
        return
    with owned(run.path):
        if (run.path / result).exists() or not _is_same(config, run):
            RunDirectory.create(run.path)  # refuses it
        logger.info("%s: an unfinished run of this command is continued", run.path)
        yield run


def _is_same(config: DictConfig, run: RunDirectory) -> bool:
    """Return whether a run directory has this configuration; what it does not say is unequal."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    remember_secrets(plain)
    resolved = scrub(OmegaConf.to_container(config, resolve=True))
    try:
        stored = OmegaConf.to_container(OmegaConf.load(run.resolved_config))
    except Exception:  # noqa: BLE001 (whatever a damaged file raises)
        return False
    return bool(stored == resolved)
