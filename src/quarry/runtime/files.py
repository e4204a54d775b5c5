"""Write files atomically and durably: a process that is killed half-way, or a machine that loses
power, leaves the old file or the new one in place."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from quarry.errors import UserError

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
"""Errors of file systems (some network ones) that cannot sync a folder."""

REMOVED = ".removed.tmp"
"""End of the name of a folder that is being removed, see `remove_at_once`."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`; what is written there replaces `path` if the block succeeds.

    A reader finds the old or the new file, never a part, also after a loss of power. Creates the
    folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def open_own(path: Path, mode: str, *, encoding: str | None = None) -> IO[Any]:
    """Open a file of a run directory to append to it; create it if it is missing.

    Others may have made the directory: a link in it could lead to any file of the user.

    Raises:
        UserError: it is a link, or no regular file.
    """
    reads = os.O_RDWR if "+" in mode else os.O_WRONLY
    flags = reads | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        number = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) or path.is_symlink():
            where = path.readlink()
            raise UserError(
                f"{path}: is a link to {where}, and no run makes one. It is not written to. Fix: "
                f"rm {shlex.quote(str(path))}"
            ) from error
        if error.errno in (errno.ENXIO, errno.EISDIR):
            raise _not_regular(path) from error
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _not_regular(path)
    return open(number, mode, encoding=encoding)  # noqa: PTH123 (closed by the caller)


def _not_regular(path: Path) -> UserError:
    return UserError(f"{path}: is no regular file, as a run makes it. Fix: move it elsewhere")


def sync(path: Path) -> None:
    """Write a file, or all files and folders below a folder, through to the disk (fsync)."""
    if path.is_dir():
        for each in path.iterdir():
            sync(each)
        sync_folder(path)
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Write the names in a folder through to the disk, so that a rename in it is durable."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(number)


def put_in_place(new: Path, path: Path, *, kept: Path | None = None) -> None:
    """Replace `path` by the complete file or folder `new`, which must lie beside it.

    A folder cannot replace another in one step: `path` is then a link, and the link is replaced.
    Of what links lead to, only a folder that this function made beside them is ever removed.
    Whenever the process is killed or the machine loses power, `path` is the old or the new one,
    complete.

    Args:
        new: of the name .step-N.tmp.
        kept: another link to a folder that `path` led to; that folder stays.
    """
    sync(new)
    if not new.is_dir():
        new.replace(path)
        sync_folder(path.parent)
        return
    target = path.with_name(f"{path.name}.{new.name.strip('.').removesuffix('.tmp')}")
    if target == own_target(path, name=path.name):  # needed until the link is replaced
        target = target.with_name(f"{target.name}+")
    remove(target)  # left by a process that was killed right here
    new.rename(target)
    link = path.with_name(f".{path.name}.link")
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    if path.is_dir() and not path.is_symlink():  # a copy of a run directory has no links
        old = path.rename(path.with_name(f".{path.name}.old"))
    else:
        old = None
    sync_folder(path.parent)  # the names of folder and link, before one replaces the other
    link.replace(path)
    sync_folder(path.parent)
    needed = {target, None if kept is None else own_target(kept, name=path.name)}
    own = [each for each in path.parent.iterdir() if _is_own(each, name=path.name)]
    for other in [*own, *([] if old is None else [old])]:
        if other not in needed:
            shutil.rmtree(other, ignore_errors=True)


def own_target(link: Path, *, name: str) -> Path | None:
    """Return the folder beside `link` to which it leads, if `put_in_place` made it.

    None: it leads elsewhere, such as to a folder of the user, or is no link.

    Args:
        name: of the path in whose place the folder was put.
    """
    if not link.is_symlink():
        return None
    target = link.parent / link.readlink()
    return target if target.parent == link.parent and _is_own(target, name=name) else None


def _is_own(folder: Path, *, name: str) -> bool:
    is_named = re.fullmatch(rf"{re.escape(name)}\.step-\d+\+*", folder.name) is not None
    return is_named and folder.is_dir() and not folder.is_symlink()


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_at_once(path: Path) -> None:
    """Remove a file or a folder so that a killed process leaves it complete, or renamed.

    A folder is renamed to `.NAME.removed.tmp` first.

    Raises:
        OSError: it cannot be removed.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    renamed = path
    if not path.name.endswith(REMOVED):
        renamed = path.with_name(f".{path.name}{REMOVED}")
        if renamed.exists():  # left by a process that was killed right here
            shutil.rmtree(renamed)
        path.rename(renamed)
    shutil.rmtree(renamed)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically through `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with sorted keys, atomically through `replacing`."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file: 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
