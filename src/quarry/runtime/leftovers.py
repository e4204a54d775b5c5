"""Make temporary files and folders beside their target, and remove those of killed processes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from quarry.runtime.files import remove

_OWN = re.compile(
    r"\..+\.\d+\.tmp"  # files.replacing
    r"|\..+\.[a-z0-9_]{8}\..+-\d+\.tmp"  # scratch_folder
    r"|\.step-\d+\.tmp|\.previous\.ckpt\.tmp|\.last\.ckpt\.link"
    r"|\.wandb-staging\.tmp"
    r"|\.(model|best|export)\.[a-z0-9_]{8}"  # of earlier versions
)
"""Names of temporary files and folders; other hidden ones are the user's."""

_OF_A_RUN = (".lock", "config.yaml")

_TARGETS_MOVED = ("model", "best", "last.ckpt")
"""Folders that are moved aside before another one takes their place."""


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `target`, and remove it at the end if it is still there.

    What is finished in it can be renamed to the target; a system's temporary folder is often small
    or in memory. First, folders for the same target are removed whose process was killed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        made_by = re.fullmatch(rf"\..+\.{re.escape(host)}-(\d+)\.tmp", left.name)
        if made_by is not None and not psutil.pid_exists(int(made_by[1])):
            remove(left)
    suffix = f".{host}-{os.getpid()}.tmp"
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=suffix, dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(*folders: Path) -> None:
    """Remove what `files.replacing` left in these folders, where its process has ended."""
    for folder in folders:
        for each in folder.glob(".*.tmp"):
            made_by = re.fullmatch(r"\..+\.(\d+)\.tmp", each.name)
            if made_by is not None and not psutil.pid_exists(int(made_by[1])):
                remove(each)


def remove_leftovers(run_dir: Path) -> None:
    """Remove the temporary files and folders that killed processes have left in a run directory.

    The caller owns the directory, so that nobody uses them. Looked at are the directory and its
    folders, where models, checkpoints, exports, reports and what W&B stages are written; not a
    folder that is a run directory itself, in which another process may work.
    """
    for folder in [run_dir, *filter(_is_part, run_dir.iterdir())]:
        for name in _TARGETS_MOVED:
            old = folder / f".{name}.old"
            if old.exists() and not os.path.lexists(folder / name):
                old.rename(folder / name)  # killed before the new one had its name
            else:
                remove(old)
        for each in folder.glob(".*"):
            if _OWN.fullmatch(each.name) is not None:
                remove(each)


def _is_part(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.is_symlink() or not folder.is_dir():
        return False
    return not any((folder / name).exists() for name in _OF_A_RUN)
