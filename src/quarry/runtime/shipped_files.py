"""Find the files that travel with the code: configurations, studies, measured rates.

In a checkout, and so in an editable install, they lie at its top. A wheel has them inside the
package (setup.py).
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str, *, package: Path = PACKAGE) -> Path:
    """Return where a file or folder of the project is, by its path in a checkout.

    Args:
        package: the folder of this package.
    """
    installed = package / name
    return installed if installed.exists() else package.parents[1] / name


def conf_dir() -> Path:
    """Return the folder of configuration groups."""
    return shipped("conf")


def studies_dir() -> Path:
    """Return the folder above `study/`, where studies are files."""
    return shipped("sweeps")
