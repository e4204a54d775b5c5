"""Resolve the folder that `benchmark.path` names."""

from __future__ import annotations

from pathlib import Path

from quarry.errors import MissingPathError


def given_folder(path: str) -> Path:
    """Return the folder of that path, with `~` expanded.

    Raises:
        MissingPathError: the path is empty, which would mean the working directory.
    """
    if not path.strip():
        raise MissingPathError(
            "benchmark.path is empty. Fix: benchmark.path=DIR of a BEIR folder, or of a folder of "
            "them. The working directory is benchmark.path=."
        )
    return Path(path).expanduser()
