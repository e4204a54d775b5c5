"""Remove what a run has written before it began, if its start fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from quarry.runtime.files import remove
from quarry.runtime.run_directory import RunDirectory

START_FILES = (
    *("config.yaml", "config_resolved.yaml", "provenance.json", "run.log", "wandb_run.json"),
    *("wandb", "tensorboard", "csv", "mlflow.db", "checkpoints"),
)
"""Files and folders of a run directory that exist before anything is scored or trained."""


@contextmanager
def removes_failed_start(run: RunDirectory) -> Iterator[Callable[[], None]]:
    """Yield a function that says that the run has begun; a failure before that leaves no trace.

    What lay in the directory before stays, and so does what no start writes. So the same command
    runs in the same directory when its mistake is mended.

    Args:
        run: a new run directory, in which nothing is written yet.
    """
    before = {path.name for path in run.path.iterdir()}
    own = [run.path / name for name in START_FILES if name not in before]
    has_begun = False

    def begin() -> None:
        nonlocal has_begun
        has_begun = True

    try:
        yield begin
    except BaseException:
        if not has_begun:
            for path in own:
                with contextlib.suppress(OSError):
                    remove(path)
        raise
