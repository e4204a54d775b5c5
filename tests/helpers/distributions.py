"""What a wheel and an sdist have to hold; `python -m helpers.distributions dist` checks files.

`make dist` does so after it has built them. Nothing is uploaded.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, run

ROOT = Path(__file__).resolve().parents[2]

BUILD = "import setuptools.build_meta as backend; backend.build_sdist({folder!r})"
"""Builds an sdist in the environment as it is, so without a network."""

PACKED = ("conf", "sweeps", "docs/performance.json")
"""In a checkout at its top, in a wheel below the package."""


def built(folder: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it; return wheel and sdist."""
    folder.mkdir(parents=True, exist_ok=True)
    code = BUILD.format(folder=str(folder))
    run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=DEVNULL)  # a line for each file
    (sdist,) = folder.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    run([*pip, *options, str(sdist)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel, sdist


def missing_in_wheel(wheel: Path) -> list[str]:
    """Return what the wheel lacks, or has and should not, in words."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata_file,) = (n for n in names if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(metadata_file).decode())
        scripts = archive.read(metadata_file.replace("METADATA", "entry_points.txt")).decode()
    expected = {f"quarry/{path}" for name in PACKED for path in files_of(name)}
    expected |= {path.removeprefix("src/") for path in files_of("src/quarry")}
    found = [f"{name} is missing" for name in sorted(expected - names)]
    own = {name for name in names if ".dist-info/" not in name}
    found += [f"{name} is not in the checkout" for name in sorted(own - expected)]
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        found.append("the license is missing")
    if metadata["Description-Content-Type"] != "text/markdown" or not metadata.get_payload():
        found.append("the description (README.md) is missing")
    found += [
        f"console script quarry-{name} is missing"
        for name in ("train", "eval")
        if f"quarry-{name} = quarry.cli.{name}:main" not in scripts
    ]
    return found


def missing_in_sdist(sdist: Path) -> list[str]:
    """Return what the sdist lacks, in words."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {path for name in ("src/quarry", *PACKED) for path in files_of(name)}
    expected |= {"pyproject.toml", "setup.py", "README.md", "LICENSE", "CHANGELOG.md"}
    expected |= {"train.py", "eval.py", "constraints.txt", "constraints-minimum.txt"}
    return [f"{name} is missing" for name in sorted(expected - names)]


def files_of(name: str) -> set[str]:
    """Return the paths of the files of a folder of the checkout, or of one file."""
    top = ROOT / name
    files = [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
    return {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    wheel, sdist = built(folder)
    problems = [f"{wheel.name}: {line}" for line in missing_in_wheel(wheel)]
    problems += [f"{sdist.name}: {line}" for line in missing_in_sdist(sdist)]
    if problems:
        sys.exit("\n".join(problems))
    if find_spec("twine") is not None:
        run([sys.executable, "-m", "twine", "check", str(wheel), str(sdist)], check=True)
    print(f"{wheel}\n{sdist}")


if __name__ == "__main__":
    main()
