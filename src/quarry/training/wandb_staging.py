"""Let W&B stage media and artifacts in the run directory, not in the system's temporary folder."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

FOLDER = ".wandb-staging.tmp"
"""In a run directory. The next owner of the directory removes it after a kill."""


class WandbStaging:
    """Redirects the two folders that W&B makes when it is imported, until `close` is called.

    W&B has no setting for them. It reads their names anew for each file.

    Args:
        save_dir: the run directory.
    """

    def __init__(self, save_dir: Path) -> None:
        self._folder = save_dir / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self._owners = _folders(self._folder)
        self._names = [owner.name for owner in self._owners]
        for number, owner in enumerate(self._owners):
            owner.name = str(self._folder / f"staged-{number}")
            Path(owner.name).mkdir(exist_ok=True)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let temporary folders that W&B makes within the block lie in the run directory, too."""
        with _made_in(self._folder):
            yield

    def close(self) -> None:
        """Give W&B folders of the system again, and remove those of the run."""
        shutil.rmtree(self._folder, ignore_errors=True)
        for owner, name in zip(self._owners, self._names, strict=True):
            owner.name = name if Path(name).is_dir() else _system_folder()


def _folders(made_in: Path) -> list[TemporaryDirectory[str]]:
    """Return the two folders of W&B; the first import makes them in the given one."""
    with _made_in(made_in):
        try:
            from wandb.sdk.artifacts.artifact import Artifact
            from wandb.sdk.data_types._private import MEDIA_TMP
        except ImportError:  # it is not installed, or another version
            return []
    found = [MEDIA_TMP, getattr(Artifact, "_TMP_DIR", None)]
    return [each for each in found if each is not None]


@contextmanager
def _made_in(folder: Path) -> Iterator[None]:
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _system_folder() -> str:
    """Make a folder that is removed at exit, in place of one in a run directory."""
    name = tempfile.mkdtemp(suffix="wandb")
    atexit.register(shutil.rmtree, name, ignore_errors=True)
    return name
