"""The folder that `benchmark.path` names."""

from __future__ import annotations

from pathlib import Path

from quarry.errors import MissingPathError


def given_folder(path: str) -> Path:
    """The folder of that path, `~` filled in.

    Raises:
        MissingPathError: the path is empty, which would be the working directory.
    """
    if not path.strip():
        raise MissingPathError(
            "benchmark.path is empty: name a BEIR folder, or a folder of them, benchmark.path=DIR. "
            "The working directory is benchmark.path=."
        )
    return Path(path).expanduser()
