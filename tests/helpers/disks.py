"""Small, full and read-only disks: mounts that need root, and are skipped without."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, *, num_bytes: int) -> Iterator[Path]:
    """A tmpfs of that size."""
    path.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(path))
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@contextmanager
def read_only(path: Path) -> Iterator[Path]:
    """A folder as it is, on a disk that cannot be written to."""
    _mount("--bind", str(path), str(path))
    try:
        _mount("-o", "remount,bind,ro", str(path))
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(folder: Path, *, leaving: int) -> Path:
    """Fills the disk of a folder with one file, so that so many bytes are free."""
    import shutil

    file = folder / "filling"
    file.write_bytes(bytes(shutil.disk_usage(folder).free - leaving))
    return file


def _mount(*arguments: str) -> None:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting a small or read-only disk needs root: {done.stderr.strip()}")
