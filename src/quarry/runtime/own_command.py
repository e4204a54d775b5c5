"""Say how this process was started: for people, who type it again, and for jobs of a sweep."""

from __future__ import annotations

import sys
from pathlib import Path

from quarry.runtime.shipped_files import PACKAGE, shipped


def own_command(primary: str) -> str:
    """Return what a person types to train or to evaluate, in the manner of this process.

    That is `python train.py`, `quarry-train` or `python -m quarry train`. A process that is none
    of them (a test, a notebook) gets the first in a checkout, else the second. A user's own script
    of the name train.py is no entry point, and gets the second.

    Args:
        primary: train or eval.
    """
    started, script = Path(sys.argv[0]).resolve(), shipped(f"{primary}.py").resolve()
    if started.name.startswith("quarry-"):
        return f"quarry-{primary}"
    if started.suffix == ".py" and started.parent == PACKAGE / "cli":
        return f"python -m quarry {primary}"
    if started == PACKAGE / "sweep" / "listing.py" and script.parent != Path.cwd().resolve():
        return f"python -m quarry {primary}"
    is_of_others = started.name in ("train.py", "eval.py") and started.parent != script.parent
    if script.is_file() and not is_of_others:
        return f"python {primary}.py"
    return f"quarry-{primary}"


def restarted() -> tuple[str, ...]:
    """Return the words that start the program of this process again, without its arguments."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return sys.executable, "-m", spec.name
    return sys.executable, str(Path(sys.argv[0]).absolute())
