"""Keep secret, and remove, what Hydra and submitit write of a sweep: all of its configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

logger = logging.getLogger(__name__)

OF_HYDRA = "multirun.yaml"
"""Hydra's sweeper writes the complete configuration, secrets too; each job's record hides them."""

OF_SUBMITIT = ".submitit"
SUBMITTED, RESULT = "_submitted.pkl", "_0_result.pkl"

begun_folder: ContextVar[Path | None] = ContextVar("begun_folder", default=None)
"""The folder of the sweep that this process began, also of one whose jobs cannot be composed."""


def make_private_folder(folder: Path, *, launcher: str) -> None:
    """Make the folder that submitit writes to in a sweep's, for its owner alone.

    Args:
        launcher: its class; others have no such folder.
    """
    if "submitit" in launcher:
        own = folder / OF_SUBMITIT
        own.mkdir(parents=True, exist_ok=True)
        own.chmod(0o700)


@contextmanager
def launcher_files_removed_at_end() -> Iterator[None]:
    """Remove what holds secrets of the sweep that the block began, however it ends."""
    try:
        yield
    finally:
        if (folder := begun_folder.get()) is not None:
            try:
                remove_launcher_files(folder)
            except OSError as error:
                logger.warning(
                    "%s may contain secrets and could not be removed (%s). Fix: delete it",
                    error.filename,
                    error.strerror,
                )


def remove_launcher_files(folder: Path) -> None:
    """Remove Hydra's file, and submitit's of the jobs that have a result.

    A job without one may still wait for its node, or be queued again: it needs its file.
    """
    (folder / OF_HYDRA).unlink(missing_ok=True)
    for result in (folder / OF_SUBMITIT).glob(f"*/*{RESULT}"):
        name = result.name.removesuffix(RESULT)
        result.with_name(f"{name}{SUBMITTED}").unlink(missing_ok=True)
        result.unlink(missing_ok=True)
