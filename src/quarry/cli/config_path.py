"""Read a relative `--config-path` as a folder: Hydra takes it for a part of this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

OPTIONS = ("--config-path", "-cp")


def with_absolute_config_path(arguments: Sequence[str], *, script: Path) -> list[str]:
    """Return the command line with the folder of `--config-path` as an absolute path.

    Args:
        script: the file that was started; the folder is looked for in the working directory, then
            beside this file.
    """
    found = list(arguments)
    for place, argument in enumerate(arguments):
        option, separator, value = argument.partition("=")
        if option not in OPTIONS:
            continue
        if separator:
            found[place] = f"{option}={_absolute(value, script)}"
        elif place + 1 < len(found):
            found[place + 1] = _absolute(arguments[place + 1], script)
    return found


def _absolute(path: str, script: Path) -> str:
    if "://" in path:
        return path
    here = Path(path).absolute()
    beside = script.absolute().parent / path
    return str(beside if not here.is_dir() and beside.is_dir() else here)
