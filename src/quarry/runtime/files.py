"""Write files atomically: a process that is killed half-way leaves the old file in place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`; what is written there replaces `path` if the block succeeds.

    A reader finds the old or the new file, never a part. Creates the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def put_in_place(new: Path, path: Path) -> None:
    """Replace `path` by the complete file or folder `new`, which must lie beside it.

    A folder cannot replace another in one step: `path` is then a link, and the link is replaced.
    Whenever the process is killed, `path` is the old or the new one, complete.
    """
    if not new.is_dir():
        new.replace(path)
        return
    target = path.with_name(f"{path.name}.{new.name.strip('.').removesuffix('.tmp')}")
    old = path.resolve() if path.exists() else None
    if target == old:  # needed until the link is replaced
        target = target.with_name(f"{target.name}+")
    shutil.rmtree(target, ignore_errors=True)  # left by a process that was killed right here
    new.rename(target)
    link = path.with_name(f".{path.name}.link")
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    if path.is_dir() and not path.is_symlink():  # a copy of a run directory has no links
        old = path.rename(path.with_name(f".{path.name}.old"))
    link.replace(path)
    for other in path.parent.glob(f"{path.name}.*"):
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
    if old is not None and old != target:
        shutil.rmtree(old, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically through `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with sorted keys, atomically through `replacing`."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")
