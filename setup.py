"""Copy what lies beside `src/` into the package of a wheel; all else is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("conf", "sweeps", "docs/performance.json")
"""Read through quarry.runtime.shipped_files, which finds them in a checkout, too."""


class BuildWithConfigurations(build_py):
    """Build the package with the files above; an editable install reads those of the checkout."""

    def run(self) -> None:
        package = Path(self.build_lib, "quarry")
        if not self.editable_mode and package.is_dir():
            shutil.rmtree(package)  # of an earlier build, with files that are no more
        super().run()
        if self.editable_mode:
            return
        for name in SHIPPED:
            target = package / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if Path(name).is_dir() else shutil.copy
            copy(name, target)


setup(cmdclass={"build_py": BuildWithConfigurations})
