"""What the scripts here have in common: pip fetches packages, and one rename puts them in place."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

CANNOT_BE_HAD = 3


def run(what: str, *, is_complete: Callable[[Path], bool], make: Callable[[Path], Path]) -> int:
    """Make the folder that the command line names, unless it is there; return the exit code.

    Args:
        what: it is, for people.
        is_complete: whether a folder holds it.
        make: fetches it into a scratch folder and returns where there the finished one is.
    """
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FOLDER")
    target = Path(sys.argv[1]).expanduser()
    if is_complete(target):
        print(f"{target} is there already.")
        return 0
    if target.exists():
        sys.exit(f"{target} holds something else: remove it, or name another folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that one rename puts it in place
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        try:
            made = make(Path(scratch))
        except (subprocess.CalledProcessError, OSError, StopIteration, KeyError) as error:
            print(f"{what} cannot be had: {_reason(error)}", file=sys.stderr)
            return CANNOT_BE_HAD
        if not is_complete(target):  # another process may have been first
            made.replace(target)
    print(f"{target} is made.")
    return 0


def pip(command: str, *arguments: str) -> None:
    """Run a command of pip.

    Raises:
        subprocess.CalledProcessError: it failed, with what it said.
    """
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", command, *quiet, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )


def _reason(error: Exception) -> str:
    """One line: the last that pip said, or what is wrong with what it brought."""
    said = getattr(error, "stderr", None) or str(error) or type(error).__name__
    return str(said).strip().splitlines()[-1]
